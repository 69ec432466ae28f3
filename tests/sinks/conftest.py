"""A run to send: the example of four hospitals, finished, and as it was after ten rounds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedtrain.report.run import Run, load_run

EXAMPLE = Path(__file__).resolve().parents[2] / "simulations" / "examples" / "heart_disease"


@pytest.fixture
def finished() -> Run:
    return load_run(EXAMPLE)


@pytest.fixture
def change_state(tmp_path: Path) -> Callable[..., Run]:
    """Return a function that puts the example, or its copy, into another state."""
    path = tmp_path / "heart"
    shutil.copytree(EXAMPLE, path)

    def change(**changes: object) -> Run:
        state = json.loads((path / "state.json").read_text()) | changes
        (path / "state.json").write_text(json.dumps(state))
        return load_run(path)

    return change
