"""Findings: one text each, strict limits, files by the method's name."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.audit.findings import Finding, describe_findings, load_findings, save_finding
from fedtrain.errors import AuditError, RunDirectoryError

FINDING = Finding(
    method="one-run",
    title="Empirical epsilon in one run",
    threat_model="The attacker sees every step.",
    unit="record",
    sample_size=1000,
    confidence=0.95,
    seed=7,
    figures={"epsilon_lower_bound": 1.25, "epsilon_claimed": 4.0, "guesses": 300, "note": None},
    verdict="holds",
    sentence="Nothing contradicts the claim.",
    pictures=("one_run.png",),
    code="0.1.0",
)
FIGURES = st.dictionaries(
    st.text(min_size=1),
    st.none() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(figures=FIGURES)
def test_finding_survives_its_text(figures):
    finding = replace(FINDING, figures=figures)
    assert Finding.from_json(finding.to_json()) == finding


@pytest.mark.parametrize(
    "change",
    [
        {"method": "../one"},
        {"method": "One"},
        {"confidence": 1.0},
        {"sample_size": -1},
        {"seed": -1},
        {"unit": "patient"},
        {"verdict": "private"},
        {"sentence": ""},
        {"pictures": ("../../etc/x.png",)},
        {"figures": {"epsilon": float("inf")}},
        {"figures": {"epsilon": [1.0]}},
    ],
    ids=str,
)
def test_finding_refuses_what_is_out_of_range(change):
    with pytest.raises(AuditError, match="finding"):
        replace(FINDING, **change)


@given(position=st.integers(0, len(FINDING.to_json()) - 1), letter=st.sampled_from("01x \n"))
def test_finding_whose_text_changed_is_refused_or_another(position, letter):
    text = FINDING.to_json()
    changed = text[:position] + letter + text[position + 1 :]
    try:
        found = Finding.from_json(changed)
    except AuditError:
        return
    assert (found == FINDING) == (changed == text)


def test_findings_are_saved_and_found_by_method(tmp_path):
    other = replace(FINDING, method="conformance", pictures=())
    paths = [save_finding(tmp_path, FINDING), save_finding(tmp_path, other)]
    assert [path.name for path in paths] == ["one-run.json", "conformance.json"]
    assert load_findings(tmp_path) == [other, FINDING]
    assert not list((tmp_path / "audit").glob("*.partial"))


def test_run_without_findings_has_none(tmp_path):
    assert load_findings(tmp_path) == []


def test_finding_under_another_name_is_refused(tmp_path):
    save_finding(tmp_path, FINDING).rename(tmp_path / "audit" / "leakage.json")
    with pytest.raises(AuditError, match="is the finding of one-run"):
        load_findings(tmp_path)


def test_finding_of_no_run_directory_is_an_operators_error(tmp_path):
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        save_finding(tmp_path / "missing", FINDING)


def test_findings_are_counted_by_verdict():
    findings = [FINDING, replace(FINDING, verdict="violated")]
    assert describe_findings(findings) == "1 violated, 1 holds"
    assert describe_findings([]) == "none"
