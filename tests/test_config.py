import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.config import (
    Config,
    compute_digest,
    load_config,
    parse_config,
    to_toml,
)
from fedtrain.errors import ConfigError

EXAMPLE = Path(__file__).parents[1] / "simulations" / "examples" / "heart_disease"


def test_empty_config_is_the_defaults():
    assert parse_config("") == Config()


def test_config_survives_its_own_toml():
    config = parse_config("[data]\nbounds = {age = [0, 120]}\n[model]\nhidden = [8, 4]")
    assert parse_config(to_toml(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nsead = 1", r"unknown key run\.sead; did you mean run\.seed\?"),
        ("[fedration]\nrounds = 1", r"unknown key fedration; did you mean federation\?"),
        ("[run]\nzzz = 1", r"known here: directory, name, seed"),
        ("[federation]\nrounds = 'a'", r"federation\.rounds = \"a\": .*integer"),
        ("[federation]\nrounds = 1.5", r"federation\.rounds = 1\.5"),
        ("[training]\nlearning_rate = -1", r"learning_rate = -1: .*greater than 0"),
        ("[training]\nlearning_rate = nan", r"learning_rate = NaN: .*finite"),
        ("[partition]\nscheme = 'iid'", r"sites is missing"),
        (
            "[partition]\nsites = 3\n[federation]\nsites_per_round = 4",
            r"sites_per_round = 4 is above partition\.sites = 3",
        ),
        ("[federation]\nsites_per_round = 2\nsite_sample_rate = 0.5", "exclude each other"),
        ("[federation]\nsites_per_round = 2\nmin_survivors = 3", "min_survivors = 3 is above"),
        ("[training]\nlocal_epochs = 1\nlocal_steps = 1", "exclude each other"),
        ("[training]\nsampling = 'poisson'", "sample_rate is missing"),
        ("[privacy]\nnoise_multiplier = 1.0", "no effect while unit = 'none'"),
        ("[privacy]\nunit = 'record'", "both missing"),
        ("[data]\nvalidation_fraction = 0.6\ntest_fraction = 0.6", "leaves nothing to train on"),
        ("[data]\nbounds = {age = [3, 1]}", "lower bound must be below"),
        ("[run]\nname = '../x'", r"run\.name"),
        ("run = 3", "run = 3"),
        ("[run", "not valid TOML"),
    ],
)
def test_wrong_config_is_one_line_with_value_and_cure(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(text)
    assert "\n" not in str(caught.value)


def test_overrides_are_toml_values_or_bare_words():
    config = parse_config(
        "", ["federation.rounds=7", "federation.strategy=FedAdam", "model.hidden=[3, 4]"]
    )
    assert config.federation.rounds == 7
    assert config.federation.strategy == "FedAdam"
    assert config.model.hidden == (3, 4)


@pytest.mark.parametrize("override", ["rounds=1", "federation.rounds", "=3", "a..b=1"])
def test_malformed_override_is_refused(override):
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        parse_config("", [override])


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "binary.toml")


def test_digest_ignores_where_and_how_a_run_is_computed():
    local = ["simulation.workers=4", "run.directory=/x", "data.path=/y"]
    assert compute_digest(parse_config("", local)) == compute_digest(Config())


@given(st.sampled_from(["run.seed=1", "federation.rounds=11", "privacy.target_delta=1e-6"]))
def test_digest_depends_on_what_is_computed(override):
    assert compute_digest(parse_config("", [override])) != compute_digest(Config())


def test_digest_of_a_run_of_earlier_days_is_still_its_own():
    config, state = (EXAMPLE / name for name in ("config.toml", "state.json"))
    assert compute_digest(load_config(config)) == json.loads(state.read_text())["digest"]


def test_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().run.seed = 3
