"""Federations of each architecture: a masked and noised round; what they learn, marked slow."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedtrain import cli
from fedtrain.config import load_config, parse_config
from fedtrain.errors import ConfigError
from fedtrain.resolution import resolve
from simulations.progress import Silence
from simulations.simulate import open_config, simulate, start

PRIVATE = """
[training]
sampling = "poisson"
sample_rate = 0.2
local_steps = 2
expected_batch_size = 20
[federation]
rounds = 1
[privacy]
unit = "record"
noise_multiplier = 1.0
metrics = "uncovered"
[secure_aggregation]
mode = "protocol"
"""
TEXT = """
[data]
source = "text"
path = "plays.txt"
sequence_length = 8
[partition]
scheme = "natural"
"""
DIGITS = '[partition]\nscheme = "iid"\nsites = 3\n'
GRAPHS = '[data]\nsource = "generated:graphs"\n[partition]\nscheme = "natural"\n'
RATINGS = '[data]\nsource = "generated:ratings"\n[partition]\nscheme = "natural"\n'
CASES = {
    "lstm": (TEXT, ["model.hidden=[8]", "model.predict=every"]),
    "gru": (TEXT, ["model.hidden=[8]"]),
    "transformer": (TEXT, ["model.embedding=8", "model.layers=1", "model.predict=every"]),
    "resnet": (DIGITS, ['data.augmentation=["flip","crop","rotate","noise"]']),
    "transformer_tabular": (DIGITS, ["model.embedding=4", "model.layers=1", "model.heads=2"]),
    "gcn": (GRAPHS, ["model.hidden=[8]"]),
    "matrix_factorisation": (RATINGS, ["model.vocabulary=300", "privacy.unit=person"]),
}


@pytest.fixture
def plays(tmp_path, monkeypatch):
    """A folder with a play of three speakers."""
    speech = "to be or not to be, that is the question.\n" * 6
    (tmp_path / "plays.txt").write_text("\n\n".join(f"{n}:\n{speech}" for n in ("A", "B", "C")))
    monkeypatch.chdir(tmp_path)


def run(path, text, *overrides):
    opened = open_config(resolve(parse_config(text, overrides)))
    directory = start(opened, path)
    simulate(directory, Silence())
    return directory.read_metrics()[-1]


@pytest.mark.usefixtures("plays")
@pytest.mark.parametrize("name", CASES)
def test_architecture_trains_masked_and_noised(name, tmp_path):
    text, options = CASES[name]
    last = run(tmp_path / "run", text + PRIVATE, f"model.name={name}", *options)
    assert last["survivors"] >= 3
    assert last["epsilon"] > 0
    assert 0 <= last["test_accuracy"] <= 1


@pytest.mark.usefixtures("plays")
def test_text_of_byte_pairs_trains_on_the_vocabulary_of_the_scenario(tmp_path, capsys):
    Path("study.toml").write_text(TEXT + '[model]\nname = "gru"\n[federation]\nrounds = 1\n')
    command = ["vocabulary", "study.toml", "--size", "110", "--min-count", "10"]
    assert cli.main([*command, "--out", "tokens.toml"]) == 0
    tokens = load_config(Path("tokens.toml")).data.vocabulary
    assert len(tokens) == 110
    assert cli.main(["simulate", "tokens.toml", "--quiet", "--out", str(tmp_path / "run")]) == 0
    saved = json.loads((tmp_path / "run" / "model.json").read_text())
    assert saved["label_names"] == list(tokens)


@pytest.mark.usefixtures("plays")
def test_vocabulary_is_not_learned_of_protected_text(capsys):
    Path("study.toml").write_text(TEXT + PRIVATE)
    assert cli.main(["vocabulary", "study.toml"]) == 2
    assert "data.vocabulary" in capsys.readouterr().err


@pytest.mark.usefixtures("plays")
@pytest.mark.parametrize(
    ("text", "option", "word"),
    [
        (TEXT, 'data.augmentation=["flip"]', "needs images"),
        (DIGITS, 'data.vocabulary=["a","b"]', r"data\.vocabulary has no effect"),
        (TEXT, 'data.vocabulary=["a","a"]', "there twice"),
        (DIGITS, "model.predict=every", r"model\.predict has no effect"),
    ],
)
def test_key_that_does_not_fit_is_refused_at_start(text, option, word):
    with pytest.raises(ConfigError, match=word):
        open_config(resolve(parse_config(text, [option])))


@dataclass(frozen=True)
class Goal:
    """What a shipped scenario reaches, with changed keys that keep it short."""

    least: float
    metric: str
    overrides: tuple[str, ...] = ()


PLAIN_SUM = ("secure_aggregation.mode=arithmetic", "federation.evaluate_every=0")
GOALS = {
    "graphs": Goal(0.6, "test_accuracy", ("federation.rounds=20", "federation.evaluate_every=0")),
    "ratings": Goal(0.65, "test_auc", ("federation.evaluate_every=0",)),
    "digits_gru": Goal(0.6, "test_accuracy", ("federation.rounds=30", *PLAIN_SUM)),
    "breast_cancer_transformer": Goal(0.9, "test_auc", PLAIN_SUM),
    "ratings_private": Goal(0.68, "test_auc", ("secure_aggregation.mode=arithmetic",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GOALS)
def test_shipped_scenario_learns(name, tmp_path):
    goal = GOALS[name]
    options = [part for key in goal.overrides for part in ("--set", key)]
    path = tmp_path / "run"
    assert cli.main(["simulate", name, "--quiet", "--out", str(path), *options]) == 0
    last = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last[goal.metric] >= goal.least
