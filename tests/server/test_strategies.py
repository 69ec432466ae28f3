import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedtrain.config import AVERAGING_STRATEGIES, STRATEGIES, FederationSection
from fedtrain.errors import ConfigError
from fedtrain.protocol import ARRAYS, METRICS, PARAMETERS, TRAIN_LOSS, WEIGHT
from server.collect import fold
from server.flower import CohortGrid, to_array_record
from server.strategies import (
    build_strategy,
    check_cohort,
    read_state,
    read_vector,
    restore_state,
)
from simulations.flower import set_identity, set_message_id

NODES = list(range(2, 9))
# These two work on single updates in Python, number by number.
RESUMED = [
    pytest.param(name, marks=pytest.mark.slow if name in ("QFedAvg", "Bulyan") else ())
    for name in STRATEGIES
]


class NoGrid(CohortGrid):
    def __init__(self):
        super().__init__(None, NODES)


def make_strategy(name, **options):
    section = FederationSection(strategy=name, strategy_options=options)
    return build_strategy(section, learning_rate=0.1)


def make_replies(messages, round_):
    generator = np.random.default_rng(round_)
    for position, message in enumerate(messages):
        set_message_id(message, str(position))
        vector = generator.normal(size=5).astype(np.float32)
        yield Message(
            RecordDict(
                {
                    ARRAYS: to_array_record(vector),
                    METRICS: MetricRecord({WEIGHT: position + 1, TRAIN_LOSS: 0.5}),
                }
            ),
            reply_to=message,
        )


def run_round(strategy, vector, round_, folded=False):
    set_identity()
    messages = strategy.configure_train(round_, to_array_record(vector), ConfigRecord(), NoGrid())
    replies = list(make_replies(messages, round_))
    if folded:
        pairs = [(r, r.content[ARRAYS][PARAMETERS].numpy()) for r in replies]
        replies = [fold(pairs, size=5)]
    arrays, metrics = strategy.aggregate_train(round_, replies)
    assert metrics[TRAIN_LOSS] == pytest.approx(0.5)
    return read_vector(arrays)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_a_round_on_the_flat_vector(name):
    result = run_round(make_strategy(name), np.zeros(5, np.float32), 1)
    assert result.dtype == np.float32
    assert result.shape == (5,)
    assert np.isfinite(result).all()
    assert (result != 0).any()


@pytest.mark.parametrize("name", AVERAGING_STRATEGIES)
def test_averaging_strategy_gives_the_same_from_folded_replies(name):
    start = np.linspace(-1, 1, 5, dtype=np.float32)
    one, other = make_strategy(name), make_strategy(name)
    a, b = start, start
    for round_ in (1, 2, 3):
        a, b = run_round(one, a, round_), run_round(other, b, round_, folded=True)
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", RESUMED)
def test_strategy_resumes_to_the_same_bytes(name):
    options = {"server_momentum": 0.9} if name == "FedAvgM" else {}
    strategy = make_strategy(name, **options)
    vector = np.zeros(5, np.float32)
    for round_ in (1, 2):
        vector = run_round(strategy, vector, round_)
    resumed = make_strategy(name, **options)
    restore_state(resumed, {k: v.copy() for k, v in read_state(strategy).items()})
    np.testing.assert_array_equal(run_round(resumed, vector, 3), run_round(strategy, vector, 3))


def test_option_that_a_strategy_lacks_names_those_it_has():
    with pytest.raises(ConfigError, match=r"server_momentun: FedAvgM has no such.*server_momentum"):
        make_strategy("FedAvgM", server_momentun=0.5)


def test_option_value_that_a_strategy_refuses_is_a_config_error():
    with pytest.raises(ConfigError, match=r"beta.*FedTrimmedAvg refuses"):
        make_strategy("FedTrimmedAvg", beta=0.7)


def test_fixed_options_cannot_be_overridden():
    with pytest.raises(ConfigError, match="min_train_nodes"):
        make_strategy("FedAvg", min_train_nodes=5)


@pytest.mark.parametrize(("name", "needed"), [("Krum", 7), ("MultiKrum", 7), ("Bulyan", 11)])
def test_robust_strategy_refuses_too_small_a_cohort(name, needed):
    section = FederationSection(strategy=name, strategy_options={"num_malicious_nodes": 2})
    check_cohort(section, needed)
    with pytest.raises(ConfigError, match=f"at least {needed} sites"):
        check_cohort(section, needed - 1)


def test_fedprox_sends_its_coefficient():
    set_identity()
    strategy = make_strategy("FedProx", proximal_mu=0.3)
    vector = to_array_record(np.zeros(2, np.float32))
    messages = list(strategy.configure_train(1, vector, ConfigRecord(), NoGrid()))
    assert messages[0].content.config_records["config"]["proximal-mu"] == 0.3
    assert isinstance(messages[0].content.array_records[ARRAYS], ArrayRecord)
