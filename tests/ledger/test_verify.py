"""What the check of a ledger finds; each attack beside the unbroken ledger, which passes."""

import json
import shutil

import pytest

from fedtrain.canonical import to_canonical
from fedtrain.errors import AuditError
from fedtrain.ledger.entries import LABEL, Entry
from fedtrain.ledger.faults import LedgerError
from fedtrain.ledger.site_ledger import SiteLedger
from fedtrain.ledger.verify import NotedHead, read_noted_heads, verify_ledger
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.secagg.roster import Identity
from tests.ledger.books import IDENTITY, fill, open_again

OTHER = Identity.from_seed(2, "thief")


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path).folder


def read(folder):
    return (folder / "ledger.jsonl").read_text().splitlines()


def write(folder, lines):
    (folder / "ledger.jsonl").write_text("".join(f"{line}\n" for line in lines))


def find_faults(folder, **options):
    return [f"{c.name}: {c.result}" for c in verify_ledger(folder, **options) if c.failed]


def rewrite(lines, index, change, identity=IDENTITY):
    """What the holder of a key can do: change an entry's body and sign the whole rest anew."""
    trees = [json.loads(line) for line in lines]
    change(trees[index]["body"])
    written = []
    for tree in trees:
        if written:
            tree["previous"] = Entry.from_json(written[-1]).to_head().digest
        tree.pop("signature")
        tree["signature"] = identity.sign(LABEL, to_canonical(tree)).hex()
        written.append(to_canonical(tree))
    return written


def test_unbroken_ledger_holds(folder):
    lines = read(folder)
    heads = [NotedHead(Entry.from_json(line).to_head().digest, i) for i, line in enumerate(lines)]
    key = IDENTITY.public_key.hex()
    assert find_faults(folder, heads=heads, public_key=key) == []
    assert [check.count for check in verify_ledger(folder)] == [8, 8, 3]


@pytest.mark.parametrize("index", range(8))
def test_edited_entry_is_found(folder, index):
    lines = read(folder)
    tree = json.loads(lines[index])
    tree["time"] = "2027-01-01T00:00:00Z"
    lines[index] = to_canonical(tree)
    write(folder, lines)
    where = f"ledger.jsonl: line {index + 1}: entry {index}"
    assert find_faults(folder) == [
        f"chain and signatures: {where} is not signed by {IDENTITY.public_key.hex()[:16]}: changed"
    ]


@pytest.mark.parametrize("index", range(7))
def test_dropped_entry_is_found(folder, index):
    lines = read(folder)
    del lines[index]
    write(folder, lines)
    assert "line" in find_faults(folder)[0]


@pytest.mark.parametrize("index", range(7))
def test_reordered_entries_are_found(folder, index):
    lines = read(folder)
    lines[index], lines[index + 1] = lines[index + 1], lines[index]
    write(folder, lines)
    assert "line" in find_faults(folder)[0]


@pytest.mark.parametrize("index", range(9))
def test_inserted_entry_is_found(folder, index):
    lines = read(folder)
    lines.insert(index, lines[3])
    write(folder, lines)
    assert "line" in find_faults(folder)[0]


def test_entry_of_another_ledger_is_found(folder, tmp_path):
    other = tmp_path / "second"
    other.mkdir()
    lines = read(folder)
    lines[2] = read(fill(other).folder)[2]
    write(folder, lines)
    assert "does not follow the line before it" in find_faults(folder)[0]


@pytest.mark.parametrize("kept", range(1, 8))
def test_truncated_ledger_is_found_by_a_noted_head_only(folder, kept):
    lines = read(folder)
    last = NotedHead(Entry.from_json(lines[-1]).to_head().digest, 7)
    write(folder, lines[:kept])
    assert find_faults(folder) == []
    assert "cut off, or written anew" in find_faults(folder, heads=[last])[0]


def test_noted_head_at_another_index_is_found(folder):
    head = Entry.from_json(read(folder)[3]).to_head().digest
    assert find_faults(folder, heads=[NotedHead(head)]) == []
    assert "it is at 3" in find_faults(folder, heads=[NotedHead(head, 4)])[0]


def test_rolled_back_ledger_that_went_on_is_found(folder):
    lines = read(folder)
    noted = NotedHead(Entry.from_json(lines[5]).to_head().digest, 5)
    write(folder, lines[:4])
    SiteLedger(folder, IDENTITY).close("run")
    assert find_faults(folder) == []
    assert "cut off, or written anew" in find_faults(folder, heads=[noted])[0]


@pytest.mark.parametrize(
    ("index", "key", "value"),
    [
        (0, "total", "99.000000000000"),
        (1, "cost", "0.000000000001"),
        (1, "rounds", 30),
        (1, "left", "4.000000000000"),
        (2, "run", "run"),
        (3, "cost", "0.000000000000"),
        (3, "spent", "0.000000000000"),
        (3, "round", 3),
        (4, "run", "third"),
        (5, "config_digest", "0" * 64),
        (7, "refunded", 3),
        (7, "rounds", 1),
        (7, "left", "4.600000000000"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_entry_that_does_not_add_up_is_found_though_signed(folder, index, key, value):
    write(folder, rewrite(read(folder), index, lambda body: body.update({key: value})))
    faults = find_faults(folder)
    assert any(fault.startswith("costs and balances: entry") for fault in faults)
    with pytest.raises(AuditError):
        SiteLedger(folder, IDENTITY)


def test_rewriting_without_a_change_holds(folder):
    write(folder, rewrite(read(folder), 1, lambda body: None))
    assert find_faults(folder) == []


def test_event_made_cheaper_is_found_though_signed(folder):
    def cheapen(body):
        body["parameters"]["noise_multiplier"] = 15.0

    write(folder, rewrite(read(folder), 1, cheapen))
    assert "cost" in find_faults(folder)[0]


def test_unknown_mechanism_is_found_though_signed(folder):
    write(folder, rewrite(read(folder), 1, lambda body: body.update(mechanism="magic")))
    assert "mechanism 'magic' is not known" in find_faults(folder)[0]


def test_ledger_written_anew_under_another_key_is_found_by_the_key(folder):
    def exchange(body):
        body["public_key"] = OTHER.public_key.hex()

    write(folder, rewrite(read(folder), 0, exchange, OTHER))
    assert find_faults(folder) == []
    key = IDENTITY.public_key.hex()
    assert "not by" in find_faults(folder, public_key=key)[0]


def test_changed_bytes_of_a_release_are_found(folder):
    path = next((folder / "releases").iterdir())
    path.write_bytes(b"other bytes")
    assert find_faults(folder) == [
        f"bytes of releases: releases/{path.name[:16]}: its bytes were changed; restore it"
    ]


def test_release_with_changed_bytes_is_not_sent_again(folder):
    for path in (folder / "releases").iterdir():
        path.write_bytes(b"other bytes")
    ledger = SiteLedger(folder, IDENTITY)
    with pytest.raises(AuditError, match="its bytes were changed"):
        ledger.release("other", 3, model_digest="d" * 64, compute=lambda: b"")


def test_check_changes_nothing(folder, tmp_path):
    with (folder / "ledger.jsonl").open("a") as file:
        file.write('{"body"')
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert find_faults(folder) == []
    for path in folder.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (copy / path.relative_to(folder)).read_bytes()


def test_lines_in_another_form_are_refused(folder):
    lines = read(folder)
    write(folder, [json.dumps(json.loads(line)) for line in lines])
    assert "not in the one form" in find_faults(folder)[0]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\n", b"{}\n", b"null\n"], ids=str)
def test_file_that_is_no_ledger_is_refused(folder, content):
    (folder / "ledger.jsonl").write_bytes(content)
    assert find_faults(folder)
    with pytest.raises(AuditError):
        SiteLedger(folder, IDENTITY)


def test_folder_without_a_ledger_is_named(tmp_path):
    with pytest.raises(LedgerError, match="no ledger can be opened there"):
        verify_ledger(tmp_path / "nothing")


def note(run, lines):
    run.mkdir()
    (run / "ledger.jsonl").write_text("".join(f"{line.to_json()}\n" for line in lines))


def test_heads_that_a_coordinator_noted_are_checked(folder, tmp_path):
    head = open_again(SiteLedger(folder, IDENTITY)).find_head()
    fields = {"mechanism": "none", "site_head": head.digest, "site_index": head.index}
    other = {**fields, "site_head": "0" * 64}
    note(
        tmp_path / "study",
        [
            LedgerEntry(site="ward", round=1, **fields),
            LedgerEntry(site="lab", round=1, **other),
        ],
    )
    assert find_faults(folder, heads=read_noted_heads(tmp_path / "study", "ward")) == []
    found = find_faults(folder, heads=read_noted_heads(tmp_path / "study", "lab"))
    assert "study, round 1 notes head 0000000000000000 at index 7" in found[0]


def test_run_without_a_head_of_the_site_is_no_evidence(tmp_path):
    note(tmp_path / "study", [LedgerEntry(site="ward", round=1, mechanism="none")])
    with pytest.raises(AuditError, match="notes no head of site 'ward'"):
        read_noted_heads(tmp_path / "study", "ward")
