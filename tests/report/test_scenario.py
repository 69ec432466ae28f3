"""Generated scenarios: every key explained, and read back unchanged."""

import tomllib
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.config import Config, build_config, load_config, parse_config
from fedtrain.errors import ConfigError
from fedtrain.report.scenario import format_value, render_scenario
from fedtrain.scenarios import list_scenarios

CHARACTERS = "aZ0 .-_,\"'\\#[]{}=\n\t\x00\x7f\u00e9\u6f22\U0001f600"
TEXTS = st.text(CHARACTERS, max_size=8)
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=4), inner)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_value_is_one_line_that_reads_back(value: Any) -> None:
    text = format_value(value)
    assert "\n" not in text
    assert tomllib.loads(f"x = {text}")["x"] == value


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "data": st.fixed_dictionaries({"path": TEXTS, "classes": st.lists(TEXTS)}),
            "partition": st.just({"scheme": "natural"}),
            "model": st.fixed_dictionaries({"options": st.dictionaries(TEXTS, st.integers())}),
            "federation": st.just({"strategy_options": {"server_momentum": 0.5}}),
            "simulation": st.fixed_dictionaries({"workers": st.integers(1, 8)}),
        },
    )
)
def test_scenario_reads_back_as_its_base(tree: dict[str, Any]) -> None:
    base = build_config(tree)
    read = parse_config(render_scenario(base, "mine"))
    assert read == build_config({**tree, "run": {"name": "mine"}})


def test_scenario_names_and_explains_every_key() -> None:
    lines = render_scenario(Config(), "mine").splitlines()
    tables: list[tuple[str, Any]] = [(k, f.annotation) for k, f in Config.model_fields.items()]
    for section, annotation in tables:
        schema = next(iter(get_args(annotation)), annotation)  # of an optional one: itself | None
        assert f"[{section}]" in [line.removeprefix("# ") for line in lines]
        for key, field in schema.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                tables.append((f"{section}.{key}", field.annotation))
                continue
            at = [
                i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{key} = ")
            ]
            assert at, key
            assert all(lines[index - 1].startswith("# ") for index in at)
    assert max(map(len, lines)) <= 100


def test_bounds_and_choices_are_named() -> None:
    text = render_scenario(Config(), "mine")
    assert "[number, at least 0, below 1]" in text
    assert "One of: sgd, adam, adamw, rmsprop." in text


def test_uncommented_defaults_change_nothing() -> None:
    # Optional sections stand last; where one is not there, all of it is a comment.
    lines = render_scenario(Config(), "run").partition("\n# [")[0].splitlines()
    keys = [line.removeprefix("# ") if " = " in line else line for line in lines]
    text = "\n".join(line for line in keys if "(not set)" not in line and _is_toml(line))
    assert parse_config(text) == Config()


def _is_toml(line: str) -> bool:
    try:
        tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return False
    return True


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 65])
def test_name_that_cannot_name_a_run_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        render_scenario(Config(), name)


def test_shipped_scenarios_read_back_under_their_new_name() -> None:
    for path in list_scenarios().values():
        base = load_config(path)
        read = parse_config(render_scenario(base, "mine"))
        assert read.run.name == "mine"
        assert read.model_copy(update={"run": base.run}) == base
