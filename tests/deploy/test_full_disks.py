"""Disks that are full: nothing is lost or paid twice, and the run goes on once there is room."""

import subprocess
from contextlib import suppress

import pytest

from tests.deploy.deployed import SCENARIO, SITES, Deployed, wait_until

MIB = 2**20


@pytest.fixture
def deployed(nursery, tmp_path):
    deployed = Deployed(tmp_path / "demo", nursery, poll_seconds=2)
    yield deployed
    deployed.close()


@pytest.fixture
def disk(tmp_path):
    """A disk of 8 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk):
    """Leave no room; return the file to remove."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        for size in (MIB, 4096):
            with suppress(OSError):
                while file.write(b"\0" * size):
                    pass
    return ballast


def assert_paid_once(deployed, run, rounds):
    identifier = deployed.read_state(run)["run_id"]
    for site in SITES:
        releases = deployed.read_releases(site)
        assert len(set(releases)) == len(releases)
        assert {name for name, _ in releases} == {identifier}
        assert len(releases) <= rounds


def go_on(deployed, run):
    """Resume a run if it has failed; wait for its end."""
    if deployed.find_run(run).status == "failed":
        with deployed.operate() as calls:
            calls.resume(run)
    wait_until(lambda: deployed.has_finished(run), what="the run's end")


@pytest.mark.slow
def test_full_disk_of_a_site_is_a_dropout_until_there_is_room(deployed, disk):
    deployed.move("clara", disk / "clara")
    deployed.start_coordinator()
    agents = deployed.start_agents()
    run = deployed.submit(SCENARIO, "federation.rounds=20", "federation.round_timeout=20")
    wait_until(lambda: deployed.read_state(run)["round"] >= 2, what="two rounds")
    ballast = fill(disk)
    wait_until(lambda: "void" in deployed.read_metrics(run)[-1], what="a void round")
    assert not agents["clara"].has_ended
    ballast.unlink()
    wait_until(lambda: deployed.read_status("clara")["state"] == "waiting", what="clara's return")
    go_on(deployed, run)
    assert deployed.read_metrics(run)[-1]["survivors"] == 3
    assert_paid_once(deployed, run, 20)


@pytest.mark.slow
def test_full_disk_of_the_coordinator_loses_no_committed_round(deployed, disk):
    deployed.move("coordinator", disk / "coordinator")
    coordinator = deployed.start_coordinator()
    deployed.start_agents()
    run = deployed.submit(SCENARIO, "federation.rounds=15")
    wait_until(lambda: deployed.read_state(run)["round"] >= 2, what="two rounds")
    ballast = fill(disk)
    before = deployed.read_state(run)["round"]
    wait_until(lambda: is_said(deployed, run, coordinator), what="that it is said")
    ballast.unlink()
    if coordinator.has_ended:
        deployed.start_coordinator()
    go_on(deployed, run)
    lines = deployed.read_metrics(run)
    assert [line["round"] for line in lines] == [*range(1, 16)]
    assert len(lines) >= before
    assert_paid_once(deployed, run, 15)


def is_said(deployed, run, coordinator):
    return coordinator.has_ended or any(
        word in coordinator.read_log() for word in ("No space left", "disk is full", "full")
    )
