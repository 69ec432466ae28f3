"""Pictures of the calculator: what they show is read off the figures, not the pixels."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from fedtrain.errors import ConfigError
from fedtrain.privacy.cross_check import cross_check
from fedtrain.report.privacy_answers import Question
from fedtrain.report.privacy_curves import (
    build_comparison_figure,
    build_noise_figure,
    build_sites_figure,
    build_steps_figure,
    save_figure,
)

QUESTION = Question(2.0, 0.1, 40, 1e-5)
SITES = Question(4.2457, 1.0, 50, 1e-5, unit="site", sites=10)


def list_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def find_points(figure: Figure) -> list[tuple[float, float]]:
    """Return the marked points: lines of one point."""
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines]


def test_steps_figure_says_what_it_shows() -> None:
    cost = QUESTION.compute_cost()
    figure = build_steps_figure(QUESTION, cost, target_epsilon=3.0)
    axes = figure.axes[0]
    assert axes.get_xlabel() == "steps (rounds x local steps)"
    assert axes.get_ylabel() == "epsilon at delta = 1e-05, add_remove"
    assert {"noise 1.6", "noise 2", "noise 2.5", "noise 3.2", "noise 4", "target 3"} <= set(
        list_texts(figure)
    )
    assert find_points(figure) == [(40, cost.epsilon)]


def test_steps_figure_has_the_answer_on_its_curve_and_more_noise_below() -> None:
    cost = QUESTION.compute_cost()
    curves = build_steps_figure(QUESTION, cost).axes[0].lines[:5]
    heights = [dict(zip(c.get_xdata(), c.get_ydata(), strict=True)).get(40.0) for c in curves]
    assert heights[1] == cost.epsilon
    known = [height for height in heights if height is not None]
    assert known == sorted(known, reverse=True)


def test_noise_figure_shows_both_relations_and_the_answer() -> None:
    figure = build_noise_figure(QUESTION, QUESTION.compute_cost(), target_epsilon=2.0)
    axes = figure.axes[0]
    assert axes.get_xlabel() == "noise multiplier (standard deviation / clip)"
    assert axes.get_ylabel() == "epsilon at delta = 1e-05"
    assert {"add_remove", "replace_one", "target 2", "noise 2"} <= set(list_texts(figure))
    assert find_points(figure) == [(2.0, QUESTION.compute_cost().epsilon)]


def test_sites_figure_has_the_known_number_at_ten_sites() -> None:
    figure = build_sites_figure(SITES, SITES.compute_cost(), target_epsilon=8.0)
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "sites whose updates are summed"
    assert axes.get_ylabel() == "noise on the mean, per coordinate / clip"
    assert find_points(figure) == [(10, pytest.approx(0.42, abs=0.005))]
    assert "10 sites: 0.42 of the clip, on every coordinate" in list_texts(figure)


def test_names_at_logarithmic_axes_stand_at_their_curves() -> None:
    figure = build_sites_figure(SITES, SITES.compute_cost(), target_epsilon=8.0)
    places = {
        text.get_text(): text.xyann[1] for text in figure.axes[0].texts if hasattr(text, "xyann")
    }
    order = [places[f"epsilon {epsilon}"] for epsilon in (1, 2, 4, 8)]
    assert order == sorted(order, reverse=True)
    assert -0.05 < order[-1] < order[0] < 0.5


@pytest.mark.parametrize("noise", [2.0, 0.1])
def test_comparison_figure_shows_accountants_and_relations(noise: float) -> None:
    question = replace(QUESTION, noise_multiplier=noise)
    events = [question.to_event()]
    answers = cross_check(events, delta=1e-5)
    figure = build_comparison_figure(question, answers)
    names = {f"{a}, {r}" for a in ("pld", "rdp") for r in ("add_remove", "replace_one")}
    assert names <= set(list_texts(figure))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[-1] == "Opacus RDP, add_remove"


@pytest.mark.parametrize("changes", [{"noise_multiplier": 0.0}, {"steps": 0}, {"sample_rate": 0.0}])
def test_nothing_to_draw_is_refused(changes: dict[str, float]) -> None:
    question = replace(QUESTION, **changes)
    with pytest.raises(ConfigError, match="--picture"):
        build_steps_figure(question, question.compute_cost())


@pytest.mark.parametrize("steps", [1, 3])
def test_few_steps_have_whole_numbers_on_the_axis(steps: int) -> None:
    question = replace(QUESTION, steps=steps)
    ticks = build_steps_figure(question, question.compute_cost()).axes[0].get_xticks()
    assert all(math.isclose(tick, round(tick)) for tick in ticks)


def test_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        figure = build_steps_figure(QUESTION, QUESTION.compute_cost())
        save_figure(figure, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1290, 690)
