"""Sites that answer wrongly: what they send is left out, or voids a round, and never the model."""

import numpy as np
import pytest
from safetensors.numpy import load

from tests.deploy.deployed import SCENARIO, SITES, Deployed

PRIVATE = SCENARIO.replace('mode = "protocol"', 'mode = "off"')
PLAIN = (
    PRIVATE.replace('unit = "record"\nnoise_multiplier = 2.0', 'unit = "none"')
    .replace('sampling = "poisson"\nsample_rate = 0.5\n', "")
    .replace("expected_batch_size = 30", "batch_size = 30")
)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, nursery):
    """A coordinator and two honest sites at work; the third is each test's own."""
    allowed = {"allowed_units": ("none", "record"), "secure_aggregation_required": False}
    deployed = Deployed(tmp_path_factory.mktemp("rogues") / "demo", nursery, **allowed)
    try:
        deployed.start_coordinator()
        for site in SITES[:2]:
            deployed.start(site)
        yield deployed
    finally:
        deployed.close()


@pytest.fixture
def train(deployed):
    """Runs a scenario with a rogue as third site; returns its lines, its model and its log."""
    rogues = []

    def train(scenario, rogue, status="finished"):
        rogues.append(deployed.start(SITES[2], rogue=rogue))
        run = deployed.submit(scenario, "federation.rounds=3", "federation.round_timeout=60")
        deployed.wait_for_run(run, status)
        log = (deployed.get_run(run) / "log.txt").read_text()
        return run, [line["survivors"] for line in deployed.read_metrics(run)], log

    yield train
    for rogue in rogues:
        rogue.stop()


def assert_finite(deployed, run):
    model = load(deployed.read_model(run))
    assert all(np.isfinite(array).all() for array in model.values())


@pytest.mark.slow
@pytest.mark.parametrize("rogue", ["nan", "shape", "garbage"])
def test_plain_update_that_is_none_is_left_out(deployed, train, rogue):
    run, survivors, log = train(PLAIN, rogue)
    assert survivors == [2, 2, 2]
    assert_finite(deployed, run)
    assert "clara" in log


@pytest.mark.slow
def test_plain_update_of_another_round_is_left_out(deployed, train):
    run, survivors, _ = train(PRIVATE, "replay")
    assert survivors == [3, 2, 2]
    assert_finite(deployed, run)


@pytest.mark.slow
@pytest.mark.parametrize(("rogue", "counted"), [("garbage", [0, 0, 0]), ("replay", [3, 0, 0])])
def test_secure_sum_without_an_honest_third_site_is_void(deployed, train, rogue, counted):
    status = "finished" if counted[0] else "failed"
    _, survivors, log = train(SCENARIO, rogue, status)
    assert survivors == counted
    assert "clara" in log
