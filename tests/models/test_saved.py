"""A saved model: comes back equal, and damage is found."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedtrain.config import ModelSection
from fedtrain.errors import AuditError, RunDirectoryError
from fedtrain.models.registry import build_model, describe_architecture
from fedtrain.models.saved import load_saved_model, save_model

SHAPE = (1, 8, 8)


def save(directory: Path, section: ModelSection | None = None, *, seed: int = 0) -> torch.nn.Module:
    section = section or ModelSection(name="cnn_small")
    model = build_model(
        section, input_shape=SHAPE, classes=3, generator=torch.Generator().manual_seed(seed)
    )
    save_model(
        directory,
        model.state_dict(),
        architecture=describe_architecture(section, input_shape=SHAPE, classes=3),
        preparation={"kind": "bounds", "low": [0.0]},
        label_names=["a", "b", "c"],
        notes={"best_round": 3, "last_round": 5},
    )
    return model


def edit_description(directory: Path, **changes: Any) -> None:
    path = directory / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn", "cnn_groupnorm", "cnn_small"])
def test_loaded_model_computes_the_same(tmp_path: Path, name: str) -> None:
    model = save(tmp_path, ModelSection(name=name)).eval()
    inputs = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    saved = load_saved_model(tmp_path)
    assert torch.equal(saved.model(inputs), model(inputs))
    assert not saved.model.training


def test_loaded_model_has_all_that_was_saved(tmp_path: Path) -> None:
    save(tmp_path)
    saved = load_saved_model(tmp_path)
    assert saved.label_names == ("a", "b", "c")
    assert saved.preparation == {"kind": "bounds", "low": [0.0]}
    assert saved.notes == {"best_round": 3, "last_round": 5}
    assert saved.architecture["name"] == "cnn_small"


def test_saving_replaces_and_is_reproducible(tmp_path: Path) -> None:
    save(tmp_path, seed=1)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save(tmp_path, seed=2)
    save(tmp_path, seed=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert set(first) == {"model.safetensors", "model.json"}


def test_saving_takes_tied_parameters(tmp_path: Path) -> None:
    tied = torch.zeros(3)
    digest = save_model(
        tmp_path, {"a": tied, "b": tied}, architecture={}, preparation={}, label_names=[]
    )
    assert json.loads((tmp_path / "model.json").read_text())["digest"] == digest


@pytest.mark.parametrize("position", [0, 20, -1])
def test_damaged_tensors_are_refused(tmp_path: Path, position: int) -> None:
    save(tmp_path)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(AuditError, match="has digest"):
        load_saved_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "format 2"),
        ({"digest": None}, "no str 'digest'"),
        ({"architecture": []}, "no dict 'architecture'"),
        ({"label_names": "abc"}, "no list 'label_names'"),
        ({"architecture": {"name": "mlp"}}, "architecture cannot be read"),
    ],
)
def test_damaged_description_is_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    save(tmp_path)
    edit_description(tmp_path, **changes)
    with pytest.raises(AuditError, match=text):
        load_saved_model(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_description_that_is_no_json_table_is_refused(tmp_path: Path, text: str) -> None:
    save(tmp_path)
    (tmp_path / "model.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(AuditError, match=r"model\.json"):
        load_saved_model(tmp_path)


def test_tensors_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    other = describe_architecture(ModelSection(name="logistic"), input_shape=SHAPE, classes=3)
    edit_description(tmp_path, architecture=other)
    with pytest.raises(AuditError, match="does not fit"):
        load_saved_model(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(RunDirectoryError, match=name):
        load_saved_model(tmp_path)


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        save(tmp_path / "absent")


def test_code_is_run_only_where_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "saved_own.py").write_text(
        "from torch import nn\n"
        "def build(input_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    model = save(tmp_path, ModelSection(name="saved_own:build"))
    with pytest.raises(AuditError, match="names code to run, 'saved_own:build'"):
        load_saved_model(tmp_path)
    saved = load_saved_model(tmp_path, allowed_functions=["saved_own:build"])
    assert torch.equal(saved.model(torch.ones(1, *SHAPE)), model(torch.ones(1, *SHAPE)))


def test_run_that_has_not_finished_is_said_to_have_no_model_yet(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="has its model when it has finished: resume it"):
        load_saved_model(tmp_path)
