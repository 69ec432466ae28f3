"""What a deployed site keeps of a run for itself: control variates, local layers."""

import json

import pytest

from clients.custody import KEPT_FOLDER
from fedtrain.cli import main
from tests.deploy.deployed import SCENARIO, Deployed

SCAFFOLD = "federation.strategy=SCAFFOLD"
LOCAL = 'personalisation.local_layers=["*bias"]'


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, nursery):
    """A coordinator and three sites at work."""
    deployed = Deployed(tmp_path_factory.mktemp("own") / "demo", nursery)
    try:
        deployed.start_coordinator()
        deployed.start_agents()
        deployed.wait_for_online()
        yield deployed
    finally:
        deployed.close()


@pytest.mark.slow
@pytest.mark.parametrize("override", [SCAFFOLD, LOCAL], ids=["scaffold", "local_layers"])
def test_site_keeps_its_own_part_in_its_folder(deployed, override):
    before = {site: count_kept(deployed, site) for site in deployed.sites}
    run = deployed.submit(SCENARIO, override)
    deployed.wait_for_run(run)
    assert [line["survivors"] for line in deployed.read_metrics(run)] == [3, 3]
    assert all(count_kept(deployed, site) == before[site] + 2 for site in deployed.sites)
    assert not list(deployed.get_run(run).rglob("kept"))
    assert main(["verify", str(deployed.get_run(run))]) == 0


@pytest.mark.slow
def test_deployed_sites_attack_nobody(deployed):
    run = deployed.submit(SCENARIO, "attackers.share=0.5", "attackers.kind=sign_flip")
    deployed.wait_for_run(run, status="failed")
    assert json.loads((deployed.get_run(run) / "state.json").read_text())["round"] == 0


def count_kept(deployed, site: str) -> int:
    return len(list((deployed.get(site) / KEPT_FOLDER).rglob("*.safetensors")))
