"""Pictures: they come out for whatever a run holds, and the same each time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from PIL import Image

from fedtrain.report.compare import name_runs
from fedtrain.report.curves import draw_comparison, draw_curves, draw_privacy
from fedtrain.report.run import load_run

MakeRun = Callable[..., Path]
NAN = float("nan")
METRICS: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "no metrics": [{"round": 1}],
    "one round": [{"round": 1, "test_accuracy": 0.5, "train_loss": 2.0, "epsilon": 1.0}],
    "constant": [{"round": i, "test_accuracy": 1.0, "epsilon": 0.0} for i in (1, 2)],
    "all missing": [{"round": 1, "train_loss": NAN, "test_accuracy": None, "epsilon": NAN}],
    "gaps": [{"round": i, "val_loss": 1.0 if i % 5 else NAN, "epsilon": i} for i in range(1, 99)],
    "diverged": [{"round": 1, "train_loss": 1e30}, {"round": 2, "train_loss": float("inf")}],
}


def read_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


@pytest.mark.parametrize("name", METRICS)
def test_pictures_come_out_for_any_metrics(name: str, tmp_path: Path) -> None:
    draw_curves(METRICS[name], tmp_path / "curves.png", best_round=1)
    config = {"privacy": {"unit": "record", "target_epsilon": 8.0}}
    draw_privacy(METRICS[name], tmp_path / "privacy.png", config=config)
    assert read_size(tmp_path / "curves.png") == (1500, 630)
    assert read_size(tmp_path / "privacy.png")[0] == 1500


def test_same_metrics_give_the_same_bytes(make_run: MakeRun, tmp_path: Path) -> None:
    metrics = load_run(make_run(private=True, rounds=5)).metrics
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in pictures:
        draw_curves(metrics, path)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_missing_privacy_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = Axes.text

    def record(axes: Axes, x: float, y: float, text: str, **style: Any) -> Any:
        written.append(text)
        return write(axes, x, y, text, **style)

    monkeypatch.setattr(Axes, "text", record)
    draw_privacy([{"round": 1}], tmp_path / "a.png")
    draw_privacy([{"round": 1, "delta": 1e-5}], tmp_path / "b.png")
    assert "No differential privacy" in written
    assert "No finite epsilon" in written


@pytest.mark.parametrize("count", [2, 9])
def test_comparison_comes_out_for_mixed_runs(make_run: MakeRun, tmp_path: Path, count: int) -> None:
    runs = [load_run(make_run(f"r{i}", private=i % 2 == 1, rounds=i)) for i in range(count)]
    draw_comparison(runs, tmp_path / "c.png", labels=name_runs(runs))
    assert read_size(tmp_path / "c.png")[0] == 1500


def test_comparison_comes_out_for_runs_without_metrics(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [load_run(make_run(name, rounds=0)) for name in "ab"]
    draw_comparison(runs, tmp_path / "c.png", labels=["a", "b"])
    assert (tmp_path / "c.png").is_file()
