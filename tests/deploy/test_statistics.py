"""Deployed sites are asked for statistics by the command; their ledgers pay for it."""

import json

import pytest

from fedtrain.cli import main
from fedtrain.config import load_config
from tests.deploy.deployed import SCENARIO, SITES, Deployed, wait_until

MOST_KILLS = 40
KILLED = {
    "coordinator": r"reply-committed|os.rename runs/\S+(statistics|state).json",
    SITES[0]: r"^(os.rename|open) ledger/\S+ train.secagg_mask",
}


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


@pytest.mark.slow
def test_site_and_coordinator_killed_in_a_question_answer_and_pay_once(tmp_path, nursery):
    deployed = Deployed(tmp_path / "demo", nursery, poll_seconds=2, statistics=True)
    marks = {name: {"marks": tmp_path / name, "places": places} for name, places in KILLED.items()}
    try:
        coordinator = deployed.start_coordinator()
        run = deployed.submit(SCENARIO, "statistics.target_epsilon=1.0")
        wait_until(lambda: deployed.read_state(run).get("run_id"), what="the run's begin")
        coordinator.stop()
        for site in SITES[1:]:
            deployed.start(site)
        keep_all_alive(deployed, run, marks)
    finally:
        deployed.close()
    assert all(len(one["marks"].read_text().splitlines()) >= 3 for one in marks.values())
    assert main(["verify", str(deployed.get_run(run))]) == 0
    once = [(deployed.read_state(run)["run_id"], 1)]
    assert [deployed.read_releases(site) for site in SITES] == [once] * 3


def keep_all_alive(deployed, run, marks):
    """Start each process again whenever it has killed itself, until the run has finished."""
    processes = {name: deployed.start(name, **options) for name, options in marks.items()}
    for _ in range(MOST_KILLS):
        wait_until(
            lambda: deployed.has_finished(run) or any(one.has_ended for one in processes.values()),
            what="the end, or a kill",
        )
        if deployed.has_finished(run):
            return
        for name in [name for name, one in processes.items() if one.has_ended]:
            assert processes[name].wait() == -9, processes[name].read_log()
            processes[name] = deployed.start(name, **marks[name])


TEXTS = """
[run]
name = "plays"
[data]
source = "text"
sequence_length = 16
[partition]
scheme = "natural"
[model]
name = "lstm"
"""


@pytest.mark.slow
def test_vocabulary_of_deployed_sites_is_learnt_by_the_command(tmp_path, nursery):
    policy = {"max_statistics_epsilon": 50.0, "min_noise_multiplier": 0.1, "lifetime_delta": 1e-5}
    deployed = Deployed(tmp_path / "demo", nursery, statistics=True, **policy)
    out = tmp_path / "tokens.toml"
    (tmp_path / "plays.toml").write_text(TEXTS)
    try:
        for site in SITES:
            text = "the cat and the rat sat on the mat with that other cat\n" * 200
            (deployed.path / f"{site}.csv").write_text(text)
        deployed.start_coordinator()
        deployed.start_agents()
        asked = ["server", "vocabulary", str(tmp_path / "plays.toml"), "--size", "129"]
        asked += ["--epsilon", "20", "--out", str(out), "--as", str(deployed.get("admin"))]
        assert main(asked) == 0
    finally:
        deployed.close()
    tokens = load_config(out).data.vocabulary
    assert "at" in tokens
    assert len(deployed.read_releases("anna")) == 2
    runs = sorted((deployed.coordinator / "runs").iterdir())
    assert [main(["verify", str(run)]) for run in runs] == [0, 0]
