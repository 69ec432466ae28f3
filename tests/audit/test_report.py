"""The report of real runs: what it says, that it verifies, and that no changed byte of it does."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain import cli
from fedtrain.audit.evidence import Evidence
from fedtrain.audit.findings import Finding, save_finding
from fedtrain.errors import AuditError
from fedtrain.report.builder import build_report
from fedtrain.report.document import LABEL, Report, SignedReport
from fedtrain.report.files import REPORT, compare, read_report, sign_report, write_report
from fedtrain.report.signing import Attestation, attest_simulated, make_coordinator, make_statement
from fedtrain.report.standalone import verify_report
from fedtrain.report.verify import verify_run
from fedtrain.seal import REPORT_FILES, extend_seal, seal_run
from fedtrain.secagg.files import create_identity, save_public_key
from fedtrain.secagg.roster import Identity
from fedtrain.secagg.simulated import make_identity

CopyRun = Callable[..., Path]
FOREVER = re.compile("anonym", re.IGNORECASE)


def find_failed(path: Path) -> list[str]:
    return [f"{check.name}: {check.result}" for check in verify_run(path) if check.failed]


def report_on(path: Path) -> SignedReport:
    assert cli.main(["report", str(path)]) == 0
    return read_report(path / REPORT)


def write_again(path: Path, change: Callable[[Report], Report]) -> None:
    """Change a report as its own coordinator could: signed, rendered and sealed anew."""
    report = change(read_report(path / REPORT).report)
    write_report(sign_report(report, None, seed=0), path, path)
    seal_run(path)


def make_finding(**changes) -> Finding:
    fields = {
        "method": "one-run",
        "title": "One run with canaries",
        "threat_model": "The attacker sees every update.",
        "unit": "record",
        "sample_size": 1000,
        "confidence": 0.95,
        "seed": 7,
        "figures": {"epsilon_lower_bound": 1.25, "epsilon_claimed": 8.0, "delta": 1e-5},
        "verdict": "holds",
        "sentence": "Nothing contradicts the claim.",
    }
    return Finding(**(fields | changes))


@pytest.fixture(scope="module")
def reported(simulated: Callable[[str], Path], tmp_path_factory) -> Path:
    path = Path(shutil.copytree(simulated("protocol"), tmp_path_factory.mktemp("reported") / "run"))
    assert cli.main(["report", str(path)]) == 0
    return path


@pytest.fixture
def copy(reported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reported, tmp_path / "run"))


@pytest.mark.parametrize("kind", ["protocol", "arithmetic", "off", "void", "plain", "dropouts"])
def test_reported_run_of_every_kind_verifies(copy_run: CopyRun, kind: str) -> None:
    path = copy_run(kind)
    report_on(path)
    assert find_failed(path) == []
    assert not [check for check in verify_report(path / REPORT) if check.failed]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_changed_byte_of_a_reported_run_is_found(reported, data):
    names = sorted(
        [*REPORT_FILES, *(f"signatures/{p.name}" for p in reported.glob("signatures/*"))]
    )
    file = reported / data.draw(st.sampled_from(names))
    content = file.read_bytes()
    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        file.write_bytes(changed)
        seal_run(reported)  # the manifest is no help
        assert find_failed(reported)
    finally:
        file.write_bytes(content)
        seal_run(reported)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_byte_of_a_report_alone_is_found(reported, tmp_path_factory, data):
    content = bytearray((reported / REPORT).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("alone") / REPORT
    path.write_bytes(content)
    assert any(check.failed for check in verify_report(path))


def lower_epsilon(report: Report) -> Report:
    first = report.guarantees[0].model_copy(update={"epsilon": 1.0})
    return report.model_copy(update={"guarantees": (first,)})


def forget_a_round(report: Report) -> Report:
    site = report.spending.sites[0].model_copy(update={"rounds": 1})
    sites = (site, *report.spending.sites[1:])
    return report.model_copy(
        update={"spending": report.spending.model_copy(update={"sites": sites})}
    )


def flatter(report: Report) -> Report:
    sentences = ("All is well.", *report.verdict.sentences[1:])
    verdict = report.verdict.model_copy(update={"sentences": sentences})
    return report.model_copy(update={"verdict": verdict})


@pytest.mark.parametrize("change", [lower_epsilon, forget_a_round, flatter])
def test_report_that_its_coordinator_embellishes_is_found(copy: Path, change) -> None:
    write_again(copy, change)
    assert [line.split(":")[0] for line in find_failed(copy)] == ["report"]
    alone = Path(shutil.copy(copy / REPORT, copy.parent / "alone.json"))
    assert any(check.failed for check in verify_report(alone))


def test_report_of_another_coordinator_is_found(copy: Path, reported: Path) -> None:
    signed = read_report(copy / REPORT)
    stranger = Identity.from_seed(1, "stranger")
    forged = signed.model_copy(
        update={
            "key": stranger.public_key.hex(),
            "signature": stranger.sign(LABEL, signed.digest).hex(),
        }
    )
    write_report(forged, copy, copy)
    seal_run(copy)
    assert "not that of the seed" in find_failed(copy)[0]
    key = make_coordinator(0).public_key.hex()
    assert not [one for one in verify_run(reported, coordinator=key) if one.failed]
    assert [one for one in verify_run(reported, coordinator="00" * 32) if one.failed]


def test_run_that_does_not_verify_gets_no_report(copy_run: CopyRun, capsys) -> None:
    path = copy_run()
    ledger = path / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"steps":4', '"steps":3'))
    assert cli.main(["report", str(path)]) == 8
    assert "ledger.jsonl: changed after it was sealed" in capsys.readouterr().err
    seal_run(path)
    assert cli.main(["report", str(path)]) == 8
    assert "another mechanism" in capsys.readouterr().err
    assert not (path / REPORT).exists()


def test_report_is_the_same_twice(copy: Path) -> None:
    before = {name: (copy / name).read_bytes() for name in REPORT_FILES}
    report_on(copy)
    assert {name: (copy / name).read_bytes() for name in REPORT_FILES} == before


def test_no_rendering_says_the_word(copy_run: CopyRun) -> None:
    for kind in ("protocol", "plain", "off"):
        path = copy_run(kind)
        report_on(path)
        for name in REPORT_FILES:
            assert not FOREVER.search((path / name).read_text()), (kind, name)


def test_run_without_privacy_is_said_to_promise_nothing(copy_run: CopyRun) -> None:
    report = report_on(copy_run("plain")).report
    assert report.verdict.level == "unbounded"
    assert "makes no promise" in report.verdict.sentences[0]
    assert report.guarantees == report.meanings == ()
    assert report.spending.sites[0].epsilon is None


def test_statement_has_its_thirteen_fields(reported: Path) -> None:
    statement = read_report(reported / REPORT).report.statement
    assert [one.number for one in statement] == list(range(1, 14))
    assert all(one.text for one in statement)
    assert "epsilon = " in statement[6].text
    assert "delta = 1e-05" in statement[6].text


def test_findings_stand_beside_the_bound(copy_run: CopyRun) -> None:
    path = copy_run()
    save_finding(path, make_finding())
    report = report_on(path).report
    assert report.verdict.level == "bounded"
    assert "epsilon of at least 1.25 where 8.00 is claimed" in report.verdict.sentences[1]
    assert "no proof of privacy" in report.verdict.sentences[1]
    assert find_failed(path) == []
    save_finding(path, make_finding(seed=8))
    assert find_failed(path)


def test_contradiction_goes_before_everything(copy_run: CopyRun) -> None:
    path = copy_run()
    bad = make_finding(verdict="violated", sentence="Epsilon is at least 9, claimed is 8.")
    save_finding(path, bad)
    verdict = report_on(path).report.verdict
    assert verdict.level == "contradicted"
    assert "the audit contradicts the claim: Epsilon is at least 9" in verdict.sentences[1]


def test_pictures_of_the_audit_are_in_the_page(copy_run: CopyRun) -> None:
    path = copy_run()
    save_finding(path, make_finding(pictures=("roc.png", "gone.png")))
    (path / "audit" / "roc.png").write_bytes(b"\x89PNG not really")
    report_on(path)
    page = (path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    (path / "audit" / "roc.png").write_bytes(b"\x89PNG another")
    extend_seal(path)
    assert [line.split(":")[0] for line in find_failed(path)] == [
        "report",
        "page, model card, registry entry",
    ]


def test_site_vouches_for_its_own_lines_alone(copy_run: CopyRun) -> None:
    path = copy_run()
    evidence = Evidence(path)
    assert attest_simulated(evidence) == 4
    assert attest_simulated(evidence) == 0
    statement = make_statement(evidence, "site-00")
    other = statement.model_copy(update={"site": "site-01"})
    with pytest.raises(AuditError, match="other ledger lines"):
        Attestation.sign(other, Identity.from_seed(0, "x")).verify(evidence)


def test_site_with_a_real_key_signs_with_that_of_the_roster(copy_run: CopyRun) -> None:
    path = copy_run()
    roster = path / "roster.json"
    roster.write_text(roster.read_text().replace('"simulated": true', '"simulated": false'))
    evidence = Evidence(path)
    statement = make_statement(evidence, "site-00")
    Attestation.sign(statement, make_identity(0, "site-00")).verify(evidence)
    with pytest.raises(AuditError, match="another key than the roster's"):
        Attestation.sign(statement, make_identity(0, "site-01")).verify(evidence)


def test_coordinator_signs_with_its_own_key(copy_run: CopyRun, tmp_path: Path) -> None:
    path, public = copy_run(), tmp_path / "coordinator.pub"
    identity = create_identity(tmp_path / "coordinator.key")
    save_public_key(public, identity.public_key)
    assert cli.main(["report", str(path), "--key", str(tmp_path / "coordinator.key")]) == 0
    assert not read_report(path / REPORT).simulated
    assert cli.main(["verify", str(path), "--coordinator", str(public)]) == 0
    assert cli.main(["report", str(path)]) == 0
    assert cli.main(["verify", str(path), "--coordinator", str(public)]) == 8


def test_report_in_another_folder_leaves_the_run_whole(copy_run: CopyRun, tmp_path: Path) -> None:
    path = copy_run()
    assert cli.main(["report", str(path), "--out", str(tmp_path / "there")]) == 0
    assert sorted(one.name for one in (tmp_path / "there").iterdir()) == sorted(REPORT_FILES)
    assert not (path / REPORT).exists()
    assert find_failed(path) == []


def test_config_in_a_report_has_no_path(reported: Path) -> None:
    toml = read_report(reported / REPORT).report.config.toml
    assert "path" not in toml
    assert str(reported) not in (reported / REPORT).read_text()


def test_unfinished_run_is_reported_as_such(copy_run: CopyRun) -> None:
    path = copy_run()
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"status": "stopped"}) + "\n")
    (path / "manifest.json").unlink()
    assert report_on(path).report.verdict.level == "unfinished"


def test_numbers_are_compared_up_to_a_rounding_and_texts_exactly() -> None:
    assert compare({"a": 1.000001, "b": ["x"]}, {"a": 1.0, "b": ["x"]}) == 2
    for other in (
        {"a": 1.001, "b": ["x"]},
        {"a": 1.0, "b": ["y"]},
        {"a": 1.0},
        {"a": 1.0, "b": []},
    ):
        with pytest.raises(AuditError):
            compare(other, {"a": 1.0, "b": ["x"]})


def test_report_follows_from_its_evidence(reported: Path) -> None:
    report = build_report(Evidence(reported))
    assert report == read_report(reported / REPORT).report
