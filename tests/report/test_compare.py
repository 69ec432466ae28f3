"""Runs side by side."""

import io
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fedtrain.report.compare import (
    UNSET,
    find_differences,
    find_first_round,
    flatten,
    name_runs,
    render_comparison,
    render_runs,
)
from fedtrain.report.run import load_run
from fedtrain.report.tables import make_console

MakeRun = Callable[..., Path]
TREES = st.recursive(
    st.integers() | st.text("xy", max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=6,
)


def render(what: object) -> str:
    file = io.StringIO()
    make_console(file, 160).print(what)
    return file.getvalue()


def test_differences_are_the_differing_keys_only() -> None:
    a = {"run": {"name": "a", "seed": 1}, "model": {"hidden": [32]}}
    b = {"run": {"name": "b", "seed": 2}, "model": {"hidden": [32], "bias": True, "options": {}}}
    assert find_differences([a, b]) == {"run.seed": [1, 2], "model.bias": [UNSET, True]}


@given(st.dictionaries(st.sampled_from("abc"), TREES, max_size=3))
def test_equal_configs_have_no_differences(tree: dict[str, object]) -> None:
    assert find_differences([tree, tree, tree]) == {}
    assert all(not isinstance(value, dict) for value in flatten(tree).values())


def test_comparison_shows_results_and_differences(make_run: MakeRun) -> None:
    runs = [load_run(make_run("plain")), load_run(make_run("private", private=True))]
    text = render(render_comparison(runs))
    assert "plain" in text
    assert "7.95" in text
    assert "privacy.unit" in text
    assert "run.name" not in text
    assert "cannot be compared" not in text


def test_epsilons_of_different_relations_are_not_comparable(make_run: MakeRun) -> None:
    other = {"privacy": {"unit": "record", "noise_multiplier": 1.0}}
    other["privacy"]["neighbouring_relation"] = "replace_one"
    paths = make_run("a", private=True), make_run("b", private=True, config=other)
    assert "cannot be compared" in render(render_comparison([load_run(path) for path in paths]))


def test_equal_configs_are_said_to_be_equal(make_run: MakeRun) -> None:
    runs = [load_run(make_run("a")), load_run(make_run("b"))]
    assert "The configs do not differ." in render(render_comparison(runs))


def test_many_long_names_are_numbered(make_run: MakeRun) -> None:
    runs = [load_run(make_run(f"a-run-with-a-long-name-{index}")) for index in range(8)]
    text = render(render_comparison(runs))
    assert "8  a-run-with-a-long-name-7" in text
    assert "…" not in text


def test_labels_tell_runs_apart(make_run: MakeRun) -> None:
    a, b = load_run(make_run("a")), load_run(make_run("b", config={"run": {"name": "a"}}))
    assert name_runs([a, b]) == ["a", "b"]
    assert len(set(name_runs([a, a, b]))) == 3


def test_runs_table_shows_each_run(make_run: MakeRun) -> None:
    runs = [load_run(make_run("a")), load_run(make_run("b", private=True, rounds=7))]
    text = render(render_runs(runs))
    assert "30/30" in text
    assert "7/30" in text
    assert "3.84" in text


def test_first_round_of_a_target_is_found_among_the_evaluated(make_run: MakeRun) -> None:
    run = load_run(make_run("a"))
    values = dict(run.get_series("test_accuracy"))
    best = max(values.values())
    assert find_first_round(run, best) == min(r for r, v in values.items() if v >= best)
    assert find_first_round(run, 1.0001) is None


def test_target_is_a_row_only_where_it_is_asked_for(make_run: MakeRun) -> None:
    runs = [load_run(make_run("a")), load_run(make_run("b"))]
    assert "rounds to 0.1" in render(render_comparison(runs, 0.1))
    assert "not in" in render(render_comparison(runs, 1.0))
    assert "rounds to" not in render(render_comparison(runs))
