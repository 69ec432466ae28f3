"""Processes that are killed at every place of their work: the run ends with the same model.

Copies of one federation, stopped after a run was admitted and each site had drawn its secret of it:
one is left alone, in the others processes die before and after everything that they write.
"""

import pytest

from tests.deploy.deployed import SCENARIO, SITES, Deployed, prepare_run, wait_until

ONE_ROUND = SCENARIO.replace("rounds = 2", "rounds = 1").replace("timeout = 120", "timeout = 1000")
MOST_KILLS = 150


@pytest.fixture(scope="module")
def admitted(tmp_path_factory, nursery):
    """A federation that nobody serves, and its run, which has begun and waits for its sites."""
    deployed = Deployed(tmp_path_factory.mktemp("admitted") / "demo", nursery, poll_seconds=2)
    try:
        coordinator = deployed.start_coordinator()
        run = deployed.submit(ONE_ROUND)
        wait_until(lambda: deployed.read_state(run).get("run_id"), what="the run's begin")
        assert coordinator.stop() == 0
    finally:
        deployed.close()
    prepare_run(deployed, run)
    return deployed, run


@pytest.fixture(scope="module")
def undisturbed(admitted):
    """The model that the run gives when nobody dies."""
    template, run = admitted
    deployed = template.copy(template.path.parent / "undisturbed")
    try:
        deployed.start_coordinator()
        deployed.start_agents()
        deployed.wait_for_run(run)
    finally:
        deployed.close()
    assert deployed.read_metrics(run)[0]["survivors"] == 3
    return deployed.read_model(run)


@pytest.fixture
def copied(admitted, tmp_path):
    """A copy of the federation, and the run."""
    template, run = admitted
    deployed = template.copy(tmp_path / "demo")
    yield deployed, run
    deployed.close()


def keep_alive(deployed, name, process, until, **options):
    """Start a process again whenever it has killed itself, until the end; return the last one."""
    for _ in range(MOST_KILLS):
        wait_for_end(process, until)
        if until():
            return process
        assert process.wait() == -9, process.read_log()
        process = deployed.start(name, **options)
    raise AssertionError("each place is reached once, so that this ends")


def wait_for_end(process, until):
    wait_until(lambda: until() or process.has_ended, 180, "the end, or a kill")


def assert_places(marks, kinds, least):
    """Processes died at places of all these kinds, and at so many in all."""
    places = marks.read_text().splitlines()
    assert kinds <= {place.partition(" ")[0] for place in places}
    assert len(places) >= least


def assert_same_run(deployed, run, model):
    """The same bytes, and one release a site, round and run."""
    assert deployed.read_metrics(run)[0]["survivors"] == 3
    assert deployed.read_model(run) == model
    for site in SITES:
        assert deployed.read_releases(site) == [(deployed.read_state(run)["run_id"], 1)]


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_coordinator_killed_at_every_write_gives_the_same_model(copied, undisturbed, tmp_path):
    deployed, run = copied
    marks = tmp_path / "marks"
    deployed.start_agents()
    process = deployed.start("coordinator", marks=marks)
    ended = keep_alive(
        deployed, "coordinator", process, lambda: deployed.has_finished(run), marks=marks
    )
    ended.kill()
    assert_places(marks, {"tasks-written", "reply-committed", "end-committed", "os.rename"}, 40)
    deployed.start_coordinator()
    assert deployed.find_run(run).status == "finished"
    assert deployed.query("SELECT count(*) FROM replies") == 0
    assert_same_run(deployed, run, undisturbed)


# A site that has noted that its mask keys are used up, and dies before its answer is kept, cannot
# give it any more: masking once is what keeps its update hidden. It drops out of that sum.
MASKED = r"(os.remove state/#.partial|(open|os.rename) agent/outbox/\S+) train.secagg_mask"


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_site_killed_at_every_write_gives_the_same_model(copied, undisturbed, tmp_path):
    deployed, run = copied
    options = {"marks": tmp_path / "marks", "places": f"^(?!{MASKED})"}
    deployed.start_coordinator()
    for site in SITES[1:]:
        deployed.start(site)
    process = deployed.start(SITES[0], **options)
    keep_alive(deployed, SITES[0], process, lambda: deployed.has_finished(run), **options)
    assert_places(options["marks"], {"open", "os.rename", "os.remove"}, 30)
    assert_same_run(deployed, run, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_site_killed_after_masking_drops_out_of_that_round_alone(nursery, tmp_path):
    deployed = Deployed(tmp_path / "demo", nursery, poll_seconds=2)
    options = {"marks": tmp_path / "marks", "places": f"^{MASKED.replace('os.rename', 'none')}"}
    try:
        deployed.start_coordinator()
        for site in SITES[1:]:
            deployed.start(site)
        process = deployed.start(SITES[0], **options)
        run = deployed.submit(SCENARIO, "federation.rounds=3")
        keep_alive(deployed, SITES[0], process, lambda: deployed.has_finished(run), **options)
    finally:
        deployed.close()
    assert ["void" in line for line in deployed.read_metrics(run)] == [True, False, False]
    for site in SITES:
        assert [number for _, number in deployed.read_releases(site)] == [1, 2, 3]
