import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedtrain.errors import AuditError
from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.events import PoissonSampledGaussian, Unprotected
from fedtrain.privacy.ledger import LedgerEntry, compute_costs, find_max_cost, read_ledger

DIGEST = "0123456789abcdef" * 4
PARAMETERS = {
    "noise_multiplier": 1.5,
    "sample_rate": 0.25,
    "steps": 4,
    "max_grad_norm": 0.5,
    "expected_batch_size": 32.0,
}
POSITIVE = st.floats(1e-300, 1e300)


def make_entry(site="a", round=1, **changes):
    fields = {"mechanism": "poisson_sampled_gaussian", **PARAMETERS, "update_digest": DIGEST}
    return LedgerEntry(**{"site": site, "round": round, **fields, **changes})


def make_unprotected(site="a", round=1):
    return LedgerEntry(site=site, round=round, mechanism="none", update_digest=DIGEST)


def write(tmp_path, *lines):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def test_line_is_as_documented():
    assert make_unprotected().to_json() == (
        f'{{"mechanism":"none","round":1,"site":"a","update_digest":"{DIGEST}"}}'
    )
    assert '"noise_multiplier":1.5' in make_entry().to_json()


@given(st.text(min_size=1, max_size=20), st.integers(1, 2**53), POSITIVE, POSITIVE)
def test_line_reads_back_to_the_entry(site, round, noise, norm):
    try:
        site.encode()
    except UnicodeEncodeError:
        return
    entry = make_entry(site, round, noise_multiplier=noise, max_grad_norm=norm)
    assert LedgerEntry.from_json(entry.to_json()) == entry
    assert "\n" not in entry.to_json()


@pytest.mark.parametrize("name", PARAMETERS)
def test_entry_has_all_parameters_or_none(name):
    with pytest.raises(ValidationError, match=f"{name} is missing"):
        make_entry(**{name: None})
    with pytest.raises(ValidationError, match=f"{name} is given"):
        LedgerEntry(
            site="a", round=1, mechanism="none", update_digest=DIGEST, **{name: PARAMETERS[name]}
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"site": ""},
        {"round": 0},
        {"round": True},
        {"mechanism": "laplace"},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"sample_rate": 1.5},
        {"steps": -1},
        {"steps": 2.0},
        {"max_grad_norm": 0.0},
        {"expected_batch_size": math.inf},
        {"update_digest": "A" * 64},
        {"update_digest": DIGEST + "\n"},
    ],
)
def test_entry_outside_its_range_cannot_be_made(changes):
    with pytest.raises(ValidationError):
        make_entry(**changes)


LINE = make_entry().to_json()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "null",
        "[1]",
        LINE[:-1],
        LINE + " ",
        LINE.replace(",", ", "),
        LINE.replace('"round":1', '"round":1,"round":1'),
        LINE.replace('"round":1', '"round":1,"extra":1'),
        LINE.replace('"steps":4', '"steps":"4"'),
        LINE.replace('"steps":4', '"steps":4.0'),
        LINE.replace("1.5", "1.50"),
        LINE.replace("1.5", "NaN"),
        LINE.replace('"steps":4', '"steps":' + "9" * 5000),
        LINE.replace('"steps":4,', ""),
    ],
)
def test_line_that_is_not_canonical_is_refused(line):
    with pytest.raises(AuditError, match="not a ledger entry"):
        LedgerEntry.from_json(line)


def test_entry_says_what_happened():
    assert make_entry().to_event() == PoissonSampledGaussian(1.5, 0.25, 4)
    assert make_unprotected().to_event() == Unprotected()


def test_ledger_reads_back(tmp_path):
    entries = [make_entry("ä", 1), make_unprotected("\u2028", 2)]
    assert read_ledger(write(tmp_path, *(e.to_json() for e in entries))) == entries
    assert read_ledger(write(tmp_path)) == []


def test_malformed_line_is_named_by_its_number(tmp_path):
    with pytest.raises(AuditError, match=r"ledger\.jsonl: line 2: not a ledger entry"):
        read_ledger(write(tmp_path, LINE, "{}", LINE))
    with pytest.raises(AuditError, match="line 2"):
        read_ledger(write(tmp_path, LINE, "", LINE))


def test_line_cut_short_is_refused(tmp_path):
    path = write(tmp_path, LINE)
    path.write_bytes(path.read_bytes() + LINE.encode())
    with pytest.raises(AuditError, match="line 2: cut short"):
        read_ledger(path)


def test_ledger_that_is_not_text_is_refused(tmp_path):
    path = write(tmp_path, LINE)
    path.write_bytes(path.read_bytes() + b"\xff\n")
    with pytest.raises(AuditError, match="line 2: not UTF-8"):
        read_ledger(path)


def test_missing_ledger_is_refused(tmp_path):
    with pytest.raises(AuditError, match="cannot be read"):
        read_ledger(tmp_path / "ledger.jsonl")


def test_each_site_pays_for_its_own_rounds():
    entries = [make_entry("a", 1), make_entry("b", 1), make_entry("a", 2)]
    costs = compute_costs(entries, delta=1e-5, neighbouring_relation="replace_one")
    expected = {"a": 8, "b": 4}
    assert costs == {
        site: compute_cost(
            [PoissonSampledGaussian(1.5, 0.25, steps)],
            delta=1e-5,
            neighbouring_relation="replace_one",
        )
        for site, steps in expected.items()
    }


def test_federation_pays_the_most_of_any_site():
    costs = compute_costs([make_entry("a"), make_entry("b"), make_entry("b", 2)], delta=1e-5)
    assert find_max_cost(costs) == costs["b"]
    costs = compute_costs([make_entry("a"), make_unprotected("b")], delta=1e-5)
    assert find_max_cost(costs).epsilon == math.inf


def test_empty_federation_has_no_cost():
    with pytest.raises(AuditError, match="no entries"):
        find_max_cost({})


@pytest.mark.parametrize("head", [{"site_head": "x", "site_index": 1}, {"site_index": -1}], ids=str)
def test_line_of_a_run_s_ledger_refuses_a_malformed_head(head):
    with pytest.raises(ValidationError):
        LedgerEntry(site="a", round=1, mechanism="none", **head)


def test_line_without_a_head_of_the_site_s_own_ledger_stays_as_it_was():
    assert "site_head" not in make_unprotected().to_json()
