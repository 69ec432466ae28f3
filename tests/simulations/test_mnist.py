"""The scenarios of MNIST reach what they say; beside the others, so that both cores have work."""

from pathlib import Path

import pytest

from simulations.progress import Silence
from simulations.simulate import open_scenario, simulate, start

pytestmark = pytest.mark.timeout(900)


def run(path: Path, scenario: str, *overrides: str):
    directory = start(open_scenario(scenario, overrides), path)
    simulate(directory, Silence())
    return directory


@pytest.mark.slow
def test_mnist_2nn_reaches_97_percent_within_110_rounds(tmp_path, shared_data):
    directory = run(
        tmp_path / "run", "mnist", f"data.path={shared_data('mnist')}", "simulation.workers=2"
    )
    accuracies = [line["test_accuracy"] for line in directory.read_metrics()]
    assert len(accuracies) == 110
    assert max(accuracies) >= 0.97


@pytest.mark.slow
def test_a_thousand_clients_at_epsilon_8_reach_94_percent(tmp_path, shared_data):
    directory = run(
        tmp_path / "run",
        "mnist_clients",
        f"data.path={shared_data('mnist')}",
        "secure_aggregation.mode=arithmetic",  # the same bytes of the model
    )
    last = directory.read_metrics()[-1]
    assert last["test_accuracy"] >= 0.94
    assert 7.5 < last["epsilon"] <= 8.0 < last["coordinator_epsilon"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_mnist_at_epsilon_3_is_as_good_as_central_training(tmp_path, shared_data):
    options = (f"data.path={shared_data('mnist')}", "simulation.workers=2")
    directory = run(tmp_path / "run", "mnist_private", *options)
    last = directory.read_metrics()[-1]
    assert last["test_accuracy"] >= 0.968
    assert 2.9 < last["epsilon"] <= 3.0
