"""Every scenario that ships, two rounds of it: its run gets a report and verifies, if unchanged."""

import pytest

from fedtrain import cli
from fedtrain.report.verify import verify_run
from fedtrain.scenarios import list_scenarios
from fedtrain.seal import seal_run

NEEDS_DATA = {
    "heart_disease": "heart_disease",
    "heart_disease_groups": "heart_disease",
    "mnist": "mnist",
    "mnist_clients": "mnist",
    "mnist_private": "mnist",
    "mnist_shards": "mnist",
    "mnist_shards_scaffold": "mnist",
    "shakespeare": "shakespeare/tinyshakespeare.txt",
    "shakespeare_transformer": "shakespeare/tinyshakespeare.txt",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(list_scenarios()))
def test_scenario_is_reported_on_and_verifies(name, tmp_path, shared_data):
    path, options = tmp_path / "run", ["--set", "federation.rounds=2"]
    if name in NEEDS_DATA:
        options += ["--set", f"data.path={shared_data(NEEDS_DATA[name])}"]
    assert cli.main(["simulate", name, "--quiet", "--out", str(path), *options]) == 0
    assert cli.main(["report", str(path)]) == 0
    assert cli.main(["verify", str(path)]) == 0
    ledger = path / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"round":2', '"round":1', 1))
    seal_run(path)
    assert [check for check in verify_run(path) if check.failed]
