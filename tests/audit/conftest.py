"""Small runs of the real command, made once, and copies of them to damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedtrain import cli
from fedtrain.seal import seal_run

SMALL = {
    "data.validation_fraction": "0",
    "partition.sites": "4",
    "federation.rounds": "2",
    "model.hidden": "[4]",
}
KINDS: dict[str, dict[str, str]] = {
    "protocol": {},
    "arithmetic": {"secure_aggregation.mode": "arithmetic"},
    "off": {"secure_aggregation.mode": "off"},
    # The seed draws a cohort of two sites in some round, and nobody in another.
    "void": {"federation.site_sample_rate": "0.5", "federation.rounds": "8"},
    "plain": {"data.validation_fraction": "0.1", "federation.evaluate_every": "2"},
    # Some sites' updates do not fit: they refuse when the masked vector is due.
    "dropouts": {"partition.sites": "6", "secure_aggregation.max_update_norm": "1.5"},
}


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that returns a finished run of a kind; not to be changed."""
    made: dict[str, Path] = {}

    def simulate(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("audited") / kind
            pairs = [f"{key}={value}" for key, value in (SMALL | KINDS[kind]).items()]
            options = [part for pair in pairs for part in ("--set", pair)]
            scenario = "digits_plain" if kind in ("plain", "dropouts") else "digits"
            out = str(made[kind])
            assert cli.main(["simulate", scenario, "--quiet", "--out", out, *options]) == 0
        return made[kind]

    return simulate


@pytest.fixture
def copy_run(simulated: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that returns a copy of a run of a kind."""

    def copy(kind: str = "protocol") -> Path:
        return Path(shutil.copytree(simulated(kind), tmp_path / kind))

    return copy


@pytest.fixture
def edit_lines() -> Callable[..., None]:
    """Return a function that changes a line file, commits its new length, and seals all anew."""

    def edit(path: Path, name: str, change: Callable[[list[str]], list[str]]) -> None:
        lines = change((path / name).read_text().splitlines())
        text = "".join(f"{line}\n" for line in lines)
        (path / name).write_text(text)
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
        state["lengths"][name] = len(text)
        (path / "state.json").write_text(json.dumps(state) + "\n")
        seal_run(path)

    return edit
