"""The example of a user's own data and model, run as its comments say."""

import json
import sys
from pathlib import Path

import pytest

from fedtrain import cli

FOLDER = Path(__file__).resolve().parents[2] / "simulations" / "own_study"
PLANTS = ["Aachen", "Bilbao", "Cork", "Delft", "Évora"]


@pytest.fixture
def in_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in the example's folder, as its reader does."""
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.slow
def test_own_study_learns_under_privacy(in_folder, tmp_path, capsys):
    assert cli.main(["simulate", "study.toml", "--out", str(tmp_path / "run"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["metrics"][-1]["test_accuracy"] > 0.9
    assert summary["privacy"]["epsilon"] <= 4.0
    assert [site["site"] for site in summary["sites"]] == PLANTS


def test_own_study_is_checked_without_running(in_folder, capsys):
    assert cli.main(["check", "study.toml"]) == 0
    text = capsys.readouterr().out
    assert "study:build_network" in text
    assert "5 (natural)" in text
