"""A vocabulary of real sites' texts: what a step asks, what it costs, what it finds."""

import json

import numpy as np
import pytest

from clients.runtime import forget_runs
from fedtrain.config import parse_config
from fedtrain.data.speeches import VOCABULARY, load_speeches
from fedtrain.errors import ConfigError
from fedtrain.ledger.verify import read_entries
from fedtrain.plan import build_statistics_event
from fedtrain.policy import Policy
from fedtrain.privacy.accounting import compute_cost
from fedtrain.resolution import resolve
from fedtrain.statistics.plan import build_asked_plan, build_reading_config
from fedtrain.statistics.records import compute_values, iterate_values
from fedtrain.statistics.vocabulary import extend_vocabulary, plan_vocabulary
from server.draws import Draws
from server.question import ask_sites, read_result
from tests.server.real_sites import SITES, RealGrid, make_federation

CONFIG = """
[data]
source = "text"
sequence_length = 16
validation_fraction = 0.0
test_fraction = 0.0
[partition]
scheme = "natural"
sites = 3
[model]
name = "lstm"
"""
TEXT = "the cat and the rat sat on the mat with that other cat\n" * 200


def plan(**changes):
    wanted = {"size": 129, "target_epsilon": 20.0, "target_delta": 1e-5, "min_count": 2} | changes
    return plan_vocabulary(parse_config(CONFIG), **wanted)


def make_step(plan, tokens=VOCABULARY):
    asked = [f"statistics.noise_multiplier={plan.noise_multiplier}"]
    if tokens != VOCABULARY:
        asked.append(f"statistics.vocabulary={json.dumps(tokens)}")
    return resolve(parse_config(CONFIG, asked))


@pytest.fixture
def grid(tmp_path):
    allowed = {"max_statistics_epsilon": 50.0, "lifetime_epsilon": 500.0}
    policy = Policy(statistics=True, min_noise_multiplier=0.1, **allowed)
    _, roster = make_federation(tmp_path, policies=[policy] * 3)
    for name in SITES:
        (tmp_path / f"{name}.csv").write_text(TEXT)
    forget_runs()
    with RealGrid(tmp_path) as grid:
        yield grid, roster, tmp_path


def test_frequent_pairs_of_all_sites_become_tokens_and_each_step_is_paid(grid):
    grid, roster, folder = grid
    wanted, tokens = plan(), VOCABULARY
    for step in range(wanted.steps):
        config = make_step(wanted, tokens)
        options = {"draws": Draws.from_system(), "roster": roster, "run_id": f"step-{step}"}
        result = read_result(config, ask_sites(grid, config, **options)[2])
        tokens = extend_vocabulary(wanted, tokens, result)
    assert "at" in tokens
    assert any(len(token) > 2 for token in tokens)
    assert not any(token[1:].count(" ") or "\n" in token[1:] for token in tokens[len(VOCABULARY) :])
    kinds = [entry.body.kind for entry in read_entries(folder / "anna" / "ledger")]
    assert kinds.count("committed") == wanted.steps == 2


def test_all_steps_together_cost_the_target():
    wanted = plan(target_epsilon=2.0)
    events = [build_statistics_event(make_step(wanted))] * wanted.steps
    assert 1.97 <= compute_cost(events, delta=1e-5).epsilon <= 2.0


@pytest.mark.parametrize("text", [TEXT, "a" * 500, "".join(map(chr, range(32, 127))) * 9])
@pytest.mark.parametrize("tokens", [VOCABULARY, (*VOCABULARY[:-1], "th", "aa", VOCABULARY[-1])])
def test_one_record_of_text_changes_a_step_by_no_more_than_is_noised(tmp_path, text, tokens):
    path = tmp_path / "text"
    path.write_text(text)
    records = load_speeches(path, 16)
    asked = build_asked_plan(make_step(plan(), tokens), records.public)
    norms = np.linalg.norm(compute_values(records.features, records.labels, asked), axis=1)
    assert norms.max() <= asked.compute_record_norm() + 1e-9


def test_sum_of_a_text_is_that_of_its_records(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    records = load_speeches(tmp_path / "text", 16)
    asked = build_asked_plan(make_step(plan()), records.public)
    (total,) = iterate_values(records.features, records.labels, asked)
    each = compute_values(records.features, records.labels, asked)
    np.testing.assert_array_equal(total[0], each.sum(axis=0))


def test_noise_alone_makes_no_token(grid):
    grid, roster, folder = grid
    for name in SITES:
        (folder / f"{name}.csv").write_text("".join(map(chr, range(33, 127))) * 2)
    forget_runs()
    wanted = plan(target_epsilon=1.0)
    config = make_step(wanted)
    options = {"draws": Draws.from_system(), "roster": roster, "run_id": "one"}
    result = read_result(config, ask_sites(grid, config, **options)[2])
    assert extend_vocabulary(wanted, VOCABULARY, result) == VOCABULARY


def test_records_of_text_are_the_same_whatever_the_vocabulary():
    """Else one character more would be another record in each step, and the steps not add up."""
    tokens = (*VOCABULARY[:-1], "th", VOCABULARY[-1])
    with_data = make_step(plan(), tokens)
    with_data = with_data.model_copy(
        update={"data": with_data.data.model_copy(update={"vocabulary": tokens})}
    )
    read = [build_reading_config(one).data for one in (make_step(plan()), with_data)]
    assert read[0] == read[1]


def test_step_of_another_vocabulary_is_no_answer(grid):
    grid, roster, _ = grid
    config = make_step(plan())
    options = {"draws": Draws.from_system(), "roster": roster, "run_id": "one"}
    result = read_result(config, ask_sites(grid, config, **options)[2])
    with pytest.raises(ConfigError, match="another question"):
        extend_vocabulary(plan(), (*VOCABULARY[:-1], "th", VOCABULARY[-1]), result)


@pytest.mark.parametrize("changes", [{"size": 97}, {"size": 600}, {"min_count": 0}])
def test_vocabulary_out_of_range_is_refused(changes):
    with pytest.raises(ConfigError, match="are needed"):
        plan(**changes)
