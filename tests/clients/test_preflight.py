import pytest

from clients import preflight
from clients.agent_folder import hold_lock, open_agent_folder
from clients.agent_settings import AgentSettings, save_settings
from clients.agent_status import StatusBoard
from clients.preflight import check_site, describe_allowed
from fedtrain.membership.federation import revoke
from fedtrain.policy import Policy
from tests.clients.coordinator import Coordinator, make_site

SCENARIO = """
[data]
source = "csv"
label = "sick"
columns = ["age"]
classes = ["0", "1"]
[data.bounds]
age = [0, 120]
[partition]
sites = 3
[model]
name = "logistic"
[training]
sampling = "poisson"
sample_rate = 0.25
local_steps = 2
expected_batch_size = 10
[federation]
rounds = 2
[privacy]
unit = "record"
noise_multiplier = 2.0
"""


def check(site, scenario=None):
    return {finding.name: finding for finding in check_site(site, scenario)}


def write_data(folder, column="age"):
    rows = "\n".join(f"{20 + number},{number % 2}" for number in range(60))
    (folder / "ward.csv").write_text(f"{column},sick\n{rows}\n")
    return str(folder / "ward.csv")


def test_site_that_lacks_nothing_is_ok(site, coordinator):
    findings = check(site)
    assert [finding for finding in findings.values() if not finding.is_ok] == []
    assert len(findings) == 14


def test_every_check_is_made_without_a_coordinator(site):
    findings = check(site)
    failed = {name for name, finding in findings.items() if not finding.is_ok}
    assert failed == {"handshake", "round trip", "clock", "version"}
    assert "does not answer" in findings["handshake"].text


def test_check_leaves_the_coordinator_in_good_order(site, coordinator):
    check(site)
    assert (coordinator.left, coordinator.session) == (1, b"")


def test_check_does_not_disturb_a_running_agent(site, coordinator):
    folder = open_agent_folder(site)
    with hold_lock(folder):
        board = StatusBoard(folder.status, "berlin")
        board.update(state="waiting", coordinator_version="0.1.0", clock_skew_ms=10)
        assert check(site)["round trip"].is_ok
    assert not coordinator.hellos


@pytest.mark.parametrize(("skew", "where"), [(300_000, "behind"), (-300_000, "ahead of")])
def test_clock_that_differs_is_said_with_the_cure(site, coordinator, skew, where):
    coordinator.skew_ms = skew
    finding = check(site)["clock"]
    assert not finding.is_ok
    assert f"300 s {where} the coordinator's" in finding.text


def test_version_that_does_not_fit_names_both(site, coordinator):
    coordinator.contract, coordinator.version = 7, "9.8.7"
    finding = check(site)["version"]
    assert not finding.is_ok
    assert "9.8.7" in finding.text


def test_coordinator_that_does_not_know_the_site_yet_is_told_what_to_install(deployment):
    coordinator = Coordinator(deployment)
    coordinator.is_behind = deployment.membership
    with coordinator.serving():
        finding = check(make_site(deployment, "clara"))["round trip"]
    assert "fedtrain server install" in finding.text


def test_revoked_site_is_told(site, deployment, coordinator):
    revoke(deployment.root, "berlin")
    assert "revoked" in check(site)["round trip"].text


def test_certificate_that_ends_soon_is_ok_and_says_how_to_renew(deployment, coordinator):
    from clients.custody import create_custody

    create_custody(deployment.path / "clara", "clara")
    finding = check(deployment.join("clara", days=5))["certificate"]
    assert finding.is_ok
    assert "fedtrain federation renew" in finding.text


@pytest.mark.parametrize(("name", "bound"), [("disk", "LEAST_DISK"), ("memory", "LEAST_MEMORY")])
def test_machine_that_is_too_small_is_said(site, monkeypatch, name, bound):
    monkeypatch.setattr(preflight, bound, 2**60)
    assert not check(site)[name].is_ok


def test_folder_that_others_can_enter_is_said(site):
    site.chmod(0o755)
    assert "chmod 700" in check(site)["folder"].text


def test_data_that_fits_the_scenario_is_ok(site, tmp_path):
    save_settings(site, AgentSettings(data_path=write_data(tmp_path)))
    (tmp_path / "s.toml").write_text(SCENARIO)
    finding = check(site, str(tmp_path / "s.toml"))["scenario"]
    assert finding.is_ok, finding.text
    assert "1 column" in finding.text


def test_data_that_lacks_a_column_is_said_by_its_name(site, tmp_path):
    save_settings(site, AgentSettings(data_path=write_data(tmp_path, column="years")))
    (tmp_path / "s.toml").write_text(SCENARIO)
    finding = check(site, str(tmp_path / "s.toml"))["scenario"]
    assert not finding.is_ok
    assert "'age'" in finding.text


def test_scenario_that_the_policy_refuses_is_said_by_its_rule(site, tmp_path):
    save_settings(site, AgentSettings(data_path=write_data(tmp_path)))
    (tmp_path / "s.toml").write_text(SCENARIO.replace("2.0", "0.2"))
    finding = check(site, str(tmp_path / "s.toml"))["scenario"]
    assert "policy.min_noise_multiplier" in finding.text


def test_data_that_is_not_there_is_said(site):
    save_settings(site, AgentSettings(data_path="/nowhere/ward.csv"))
    assert "/nowhere/ward.csv" in check(site)["data"].text


def test_scenario_that_names_a_file_here_is_refused_where_the_site_names_none(site, tmp_path):
    scenario = SCENARIO.replace("[data]", f"[data]\npath = '{write_data(tmp_path)}'")
    (tmp_path / "s.toml").write_text(scenario)
    assert "set data_path" in check(site, str(tmp_path / "s.toml"))["scenario"].text


def test_check_reserves_no_budget(site, tmp_path):
    save_settings(site, AgentSettings(data_path=write_data(tmp_path)))
    (tmp_path / "s.toml").write_text(SCENARIO)
    before = (site / "ledger" / "ledger.jsonl").read_bytes()
    check(site, str(tmp_path / "s.toml"))
    assert (site / "ledger" / "ledger.jsonl").read_bytes() == before


def test_policy_in_words_names_what_it_allows():
    text = describe_allowed(Policy(max_epsilon=3.0, columns=("age",), models=("logistic",)))
    assert "epsilon at most 3 a run" in text
    assert "1 column may be used" in text
    assert "models logistic" in text
