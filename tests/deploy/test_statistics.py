"""Deployed sites are asked for statistics by the command; their ledgers pay for it."""

import json

import pytest

from fedtrain.cli import main
from tests.deploy.deployed import SCENARIO, Deployed


@pytest.mark.slow
def test_deployed_sites_answer_for_what_their_ledgers_pay(tmp_path, nursery, capsys):
    deployed = Deployed(tmp_path / "demo", nursery, statistics=True)
    try:
        deployed.start_coordinator()
        deployed.start_agents()
        deployed.wait_for_online()
        (tmp_path / "heart.toml").write_text(SCENARIO)
        asked = ["server", "stats", str(tmp_path / "heart.toml"), "--epsilon", "1", "--wait"]
        assert main([*asked, "--json", "--as", str(deployed.get("admin"))]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["sites"] == 3
        assert abs(result["records"] - 180) < 6 * result["noise_stddev"]
        (run,) = (path for path in (deployed.coordinator / "runs").iterdir())
        assert main(["verify", str(run)]) == 0
        name = deployed.read_state(run.name)["run_id"]
        assert [deployed.read_releases(site) for site in deployed.sites] == [[(name, 1)]] * 3
    finally:
        deployed.close()
