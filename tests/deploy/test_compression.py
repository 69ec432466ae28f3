"""Deployed sites send the coordinates, and the bits, that the coordinator decodes."""

import pytest

from fedtrain.cli import main
from tests.deploy.deployed import SCENARIO, Deployed

COMPRESSED = (
    "compression.update_bits=8",
    "compression.largest_coordinate=2.0",
    "compression.keep_share=0.5",
    "compression.prune_share=0.3",
)


@pytest.mark.slow
def test_deployed_run_of_fewer_bytes_is_verified(tmp_path, nursery):
    deployed = Deployed(tmp_path / "demo", nursery)
    try:
        deployed.start_coordinator()
        deployed.start_agents()
        deployed.wait_for_online()
        run = deployed.submit(SCENARIO, *COMPRESSED)
        deployed.wait_for_run(run)
        assert [line["survivors"] for line in deployed.read_metrics(run)] == [3, 3]
        assert main(["verify", str(deployed.get_run(run))]) == 0
    finally:
        deployed.close()
