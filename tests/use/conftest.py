"""Runs to use: the example of four hospitals, and a model of digits that was never trained."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fedtrain import cli
from fedtrain.config import build_config, to_toml
from fedtrain.data.preparation import Preparation
from fedtrain.models.registry import build_model, describe_architecture
from fedtrain.models.saved import save_model
from fedtrain.use.run_model import RunModel, load_run_model

EXAMPLE = Path(__file__).resolve().parents[2] / "simulations" / "examples" / "heart_disease"
ROWS = {
    "patient": ["p1", "p2", "p3", "p4"],
    "age": [63, 67, 41, 130],
    "sex": ["1", "1.0", "0", None],
    "cp": ["1", "4", "2", "3"],
    "thal": ["6", "7", "3", ""],
    "num": [0, 2, 0, None],
}


@pytest.fixture
def heart() -> RunModel:
    return load_run_model(EXAMPLE)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "clinic.csv"
    pl.DataFrame(ROWS).write_csv(path)
    return path


@pytest.fixture
def digits(tmp_path: Path) -> RunModel:
    return make_digits(tmp_path / "digits")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    path = tmp_path / "scans.npz"
    pixels = np.random.default_rng(0).integers(0, 17, (12, 1, 8, 8)).astype(np.uint8)
    np.savez(path, x=pixels, y=np.arange(12) % 10)
    return path


def make_digits(path: Path, **model: Any) -> RunModel:
    """Write what a run of digits leaves, with start parameters."""
    preparation = Preparation("bounds", (1, 8, 8), tuple("0123456789"), scale=(16.0,))
    return write_run(path, {"model": {"name": "cnn_small"} | model}, preparation)


def write_run(path: Path, tree: dict[str, Any], preparation: Preparation) -> RunModel:
    """Write what a run leaves, with start parameters."""
    config = build_config(tree)
    sizes = {
        "input_shape": preparation.input_shape,
        "classes": preparation.outputs,
        "input_dtype": torch.int64 if preparation.is_discrete else torch.float32,
    }
    module = build_model(config.model, generator=torch.Generator().manual_seed(0), **sizes)
    path.mkdir()
    (path / "config.toml").write_text(to_toml(config))
    save_model(
        path,
        module.state_dict(),
        architecture=describe_architecture(config.model, **sizes),
        preparation=preparation.to_json(),
        label_names=preparation.label_names,
    )
    return load_run_model(path)


@pytest.fixture
def call(capsys):
    """Return a function that runs `fedtrain ...`: (exit code, stdout, stderr)."""

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
