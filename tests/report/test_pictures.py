"""Pictures of the page: inside their frames, whatever the numbers are."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.report.document import Attack, Belief
from fedtrain.report.pictures import (
    Bar,
    Bound,
    Dot,
    draw_bars,
    draw_beliefs,
    draw_bounds,
    draw_scatter,
    draw_trade_off,
)

shares = st.floats(0, 1)
epsilons = st.floats(0, 1e4)


def check_inside(picture: str) -> None:
    """Check that all that is drawn, but for the ends of texts, is inside the view box."""
    tree = ElementTree.fromstring(picture)
    _, _, width, height = map(float, tree.attrib["viewBox"].split())
    for element in tree:
        for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", element.attrib.get("d", "")):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height
        for key, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert 0 <= float(element.attrib.get(key, 0)) <= most


def make_attack(rate: float, found: float) -> Attack:
    return Attack(false_positive_rate=rate, true_positive_rate=found)


@given(st.lists(shares, min_size=3, max_size=3))
def test_trade_off_stays_in_its_frame(found):
    attacks = [make_attack(r, f) for r, f in zip((0.001, 0.01, 0.1), sorted(found), strict=True)]
    check_inside(
        draw_trade_off([make_attack(0, 0), *attacks, make_attack(1, 1)], attacks, name="x")
    )


@given(st.lists(shares, min_size=1, max_size=4))
def test_beliefs_stay_in_their_frame(posteriors):
    check_inside(draw_beliefs([Belief(prior=0.01, posterior=one) for one in posteriors]))


@given(st.lists(epsilons, min_size=1, max_size=6), st.one_of(st.none(), epsilons))
def test_bounds_stay_in_their_frame(lows, claimed):
    check_inside(draw_bounds([Bound("a method", low, claimed) for low in lows]))


@given(st.lists(shares, min_size=1, max_size=6))
def test_bars_stay_in_their_frame(values):
    bars = [Bar("a site with a very long name indeed", one, f"{one:.3f}") for one in values]
    check_inside(draw_bars(bars, title="t", limit=1.0, limit_name="all"))


@given(st.lists(st.tuples(st.floats(0.01, 100), shares), min_size=1, max_size=5))
def test_scatter_stays_in_its_frame(points):
    check_inside(draw_scatter([Dot("run", x, y) for x, y in points], x_name="x", y_name="y"))


def test_picture_is_described_by_its_numbers():
    picture = draw_bounds([Bound("sentinels", 1.6, 3.44)])
    assert "sentinels: at least 1.60, claimed at most 3.44" in picture
    assert ElementTree.fromstring(picture).attrib["role"] == "img"


def test_names_in_pictures_are_escaped():
    assert "<b>" not in draw_bars([Bar("<b>", 0.5, "<b>")], title="<b>")


@pytest.mark.parametrize(("name", "mark"), [("guess", "dasharray"), ("curve", "")])
def test_lines_have_classes_that_the_style_draws(name, mark):
    picture = draw_trade_off(
        [make_attack(0, 0), make_attack(1, 1)], [make_attack(0.1, 0.2)], name=""
    )
    assert f'class="{name}"' in picture
