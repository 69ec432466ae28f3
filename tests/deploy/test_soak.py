"""Two hundred rounds in which one site is killed every few seconds."""

import time

import pytest

from tests.deploy.deployed import SCENARIO, SITES, Deployed, wait_until

ROUNDS = 200
MOST_GROWTH = 1.15
KILL_SECONDS = 4.0


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_soak_of_200_rounds_with_kills_keeps_memory_flat(nursery, tmp_path):
    deployed = Deployed(tmp_path / "demo", nursery, poll_seconds=2)
    overrides = (f"federation.rounds={ROUNDS}", "privacy.noise_multiplier=8.0")
    try:
        ends = [deployed.start_coordinator(), *(deployed.start(site) for site in SITES[:2])]
        run = deployed.submit(SCENARIO, *overrides)
        kills, early, late = soak(deployed, run, ends)
    finally:
        deployed.close()
    lines = deployed.read_metrics(run)
    assert [line["round"] for line in lines] == [*range(1, ROUNDS + 1)]
    assert sum(line["survivors"] == 3 for line in lines) > 0.8 * ROUNDS
    for site in SITES:
        numbers = [number for _, number in deployed.read_releases(site)]
        assert len(set(numbers)) == len(numbers) <= ROUNDS
    assert kills >= 5
    growth = [after / before for before, after in zip(early, late, strict=True)]
    assert max(growth) < MOST_GROWTH, (early, late)


def soak(deployed, run, ends):
    """Kill the third site again and again; return how often, and memory early and late."""
    kills, early, late, victim = 0, [], [], deployed.start(SITES[2])
    while wait_for_rounds(deployed, run):
        memory = [process.read_memory() for process in ends]
        if deployed.read_state(run)["round"] >= ROUNDS // 5:
            early = early or memory
            late = memory
        victim.kill()
        kills += 1
        victim = deployed.start(SITES[2])
    return kills, early, late


def wait_for_rounds(deployed, run):
    """Wait some seconds and two rounds, however slow the machine is; say whether there are more."""
    done, begun = deployed.read_state(run)["round"], time.monotonic()
    wait_until(lambda: is_due(deployed, run, begun=begun, done=done), 120, "the next rounds")
    return not deployed.has_finished(run)


def is_due(deployed, run, *, begun, done):
    if deployed.has_finished(run):
        return True
    is_later = time.monotonic() - begun > KILL_SECONDS
    return is_later and deployed.read_state(run)["round"] >= done + 2
