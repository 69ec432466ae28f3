"""The calls of operators over real sockets: who may make which, and what is written of it."""

import json

import pytest

from fedtrain.errors import ConfigError
from fedtrain.link.faults import RefusedError, RevokedError, UnavailableError
from server.audit_log import verify_audit_log

SCENARIO = """
[run]
name = "small"
[data]
source = "sklearn:breast_cancer"
validation_fraction = 0.0
[model]
name = "logistic"
[training]
learning_rate = 0.1
[federation]
rounds = 2
[secure_aggregation]
mode = "off"
"""


@pytest.fixture
def admin(deployment, coordinator):
    with deployment.operator() as admin:
        yield admin


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO)
    return path


def read_audit(deployment):
    path = deployment.get("coordinator") / "audit.jsonl"
    verify_audit_log(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["who"], line["what"], line["outcome"].split(":")[0]) for line in lines]


def test_submitted_run_waits_for_its_sites(admin, scenario):
    run = admin.submit(scenario, overrides=["federation.rounds=7"], sites=["a"])
    summary = admin.find_run(run)
    assert (summary.rounds, list(summary.sites), summary.submitted_by) == (7, ["a"], "admin")


def test_status_says_whom_a_run_waits_for(admin, scenario, coordinator):
    run = admin.submit(scenario, overrides=[], sites=[])
    while not coordinator.queue.waiting_for:
        pass
    assert admin.find_run(run).reason == "waits for a, b"
    assert admin.get_status().running == run


@pytest.mark.parametrize(
    ("overrides", "sites", "reason"),
    [
        (["federation.rounds=0"], [], "rounds"),
        (["partition.sites=5"], [], "partition.sites = 5"),
        ([], ["a", "zoe"], "'zoe' is no site"),
        ([], ["a", "a"], "named twice"),
        (["federation.min_survivors=3"], [], "min_survivors"),
    ],
)
def test_scenario_that_cannot_run_is_refused_in_words(
    admin, scenario, coordinator, overrides, sites, reason
):
    with pytest.raises(RefusedError, match=reason):
        admin.submit(scenario, overrides=overrides, sites=sites)
    assert coordinator.records.list() == []


@pytest.mark.parametrize(
    ("role", "call"),
    [
        ("auditor", lambda calls, path: calls.submit(path, overrides=[], sites=[])),
        ("auditor", lambda calls, path: calls.stop("small")),
        ("auditor", lambda calls, path: list(calls.read_log("", follow=False))),
        ("researcher", lambda calls, path: calls.install(b"")),
        ("researcher", lambda calls, path: calls.fetch("none", path.with_name("out"))),
    ],
)
def test_call_beyond_a_role_is_refused_and_audited(deployment, coordinator, scenario, role, call):
    with deployment.operator(role) as calls, pytest.raises(RefusedError):
        call(calls, scenario)
    who, _, outcome = read_audit(deployment)[-1]
    assert (who, outcome) == (role, "refused")


def test_site_is_no_operator(deployment, coordinator):
    with pytest.raises(ConfigError, match="operator's"), deployment.operator("a"):
        pass


def test_run_of_another_researcher_is_not_stopped(deployment, coordinator, admin, scenario):
    run = admin.submit(scenario, overrides=[], sites=[])
    with (
        deployment.operator("researcher") as researcher,
        pytest.raises(RefusedError, match="'admin''s") as refused,
    ):
        researcher.stop(run)
    assert refused.value.reason == "role"


def test_own_run_is_stopped_and_resumed(deployment, coordinator, scenario):
    with deployment.operator("researcher") as researcher:
        run = researcher.submit(scenario, overrides=[], sites=[])
        assert researcher.stop(run) == "stopped"
        assert researcher.find_run(run).reason == "stopped by researcher"
        assert researcher.resume(run) in ("queued", "running")


def test_changes_are_audited_in_order(deployment, coordinator, admin, scenario):
    run = admin.submit(scenario, overrides=[], sites=[])
    admin.stop(run)
    assert read_audit(deployment)[1:] == [
        ("admin", "submit", "begun"),
        ("admin", "submit", "done"),
        ("admin", "stop", "begun"),
        ("admin", "stop", "done"),
    ]


def test_fetched_files_are_those_of_the_run(deployment, coordinator, admin, tmp_path, scenario):
    run = admin.submit(scenario, overrides=[], sites=[])
    admin.stop(run)
    source = coordinator.queue.get_path(run)
    (source / "sites").mkdir()
    large = bytes(range(256)) * 10_000
    for name, data in {"model.safetensors": large, "sites/a.json": b"{}", "empty": b""}.items():
        (source / name).write_bytes(data)
    admin.fetch(run, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == large
    assert (tmp_path / "out" / "empty").read_bytes() == b""
    assert (tmp_path / "out" / "sites" / "a.json").read_bytes() == b"{}"
    assert not (tmp_path / "out" / "checkpoint" / "lock").exists()


def test_auditor_gets_no_model(deployment, coordinator, admin, tmp_path, scenario):
    run = admin.submit(scenario, overrides=[], sites=[])
    admin.stop(run)
    (coordinator.queue.get_path(run) / "model.safetensors").write_bytes(b"model")
    with deployment.operator("auditor") as auditor:
        auditor.fetch(run, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "config.toml" in names
    assert "model.safetensors" not in names


def test_log_of_a_run_is_read(coordinator, admin, scenario, caplog):
    caplog.set_level("INFO", logger="fedtrain")
    run = admin.submit(scenario, overrides=[], sites=[])
    while not coordinator.queue.waiting_for:
        pass
    admin.stop(run)
    assert "waiting_for_sites missing=a,b" in "".join(admin.read_log(run, follow=False))


def test_revoked_operator_is_cut(deployment, coordinator, admin):
    with deployment.operator("researcher") as researcher:
        researcher.list_runs()
        admin.install(deployment.revoke("researcher"))
        with pytest.raises(RevokedError):
            researcher.list_runs()


def test_older_membership_is_refused(deployment, coordinator, admin):
    old = deployment.read_membership()
    admin.install(deployment.revoke("b"))
    with pytest.raises(RefusedError, match="older"):
        admin.install(old)
    assert [site.name for site in admin.list_sites()] == ["a"]


def test_operator_that_calls_too_often_is_slowed_down(coordinator, admin):
    with pytest.raises(UnavailableError, match="calls more than"):
        [admin.get_status() for _ in range(500)]
