"""Killed at any step, a ledger opens again, counts no less, and a round asked for again works."""

import os
import signal
from multiprocessing import get_context

import pytest

from fedtrain.errors import AuditError
from fedtrain.ledger.faults import LedgerError
from fedtrain.ledger.site_ledger import SiteLedger
from fedtrain.ledger.verify import verify_ledger
from tests.ledger.books import IDENTITY, create, fill, make_terms, open_again, release

STEPS = (
    "computed",
    "locked",
    "payload-written",
    "payload-synced",
    "payload-renamed",
    "payload-durable",
    "entry-without-end",
    "entry-written",
    "entry-synced",
)
# From this step on the entry may be what another process sees: the same bytes must come again.
VISIBLE = STEPS.index("entry-written")


def run_until(folder, step, act):
    def kill(name):
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    act(SiteLedger(folder, IDENTITY, on_step=kill))


def release_first(ledger):
    release(ledger, 1, b"first draw")


def reserve(ledger):
    ledger.reserve(make_terms())


def kill_at(folder, step, act):
    """Run an act in a process that kills itself at a step."""
    process = get_context("fork").Process(target=run_until, args=(folder, step, act))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def assert_holds(ledger):
    assert [check.result for check in verify_ledger(ledger.folder) if check.failed] == []


@pytest.mark.parametrize("step", STEPS)
def test_kill_in_a_release_never_undercounts(tmp_path, step):
    ledger = create(tmp_path)
    ledger.reserve(make_terms())
    left = ledger.compute_balance().left
    kill_at(ledger.folder, step, release_first)
    assert open_again(ledger).compute_balance().left == left
    assert_holds(ledger)


@pytest.mark.parametrize("step", STEPS)
def test_round_asked_for_again_after_a_kill_is_released_once(tmp_path, step):
    ledger = create(tmp_path)
    ledger.reserve(make_terms())
    kill_at(ledger.folder, step, release_first)
    released = release(open_again(ledger), 1, b"second draw")
    was_committed = STEPS.index(step) >= VISIBLE
    assert released.repeated == was_committed
    assert released.payload == (b"first draw" if was_committed else b"second draw")
    assert open_again(ledger).find_reservation("run").rounds_left == 2


@pytest.mark.parametrize("step", [step for step in STEPS if step.startswith("entry")])
def test_kill_in_a_reservation_leaves_it_whole_or_not_made(tmp_path, step):
    ledger = create(tmp_path)
    kill_at(ledger.folder, step, reserve)
    again = open_again(ledger)
    assert (again.find_reservation("run") is not None) == (STEPS.index(step) >= VISIBLE)
    assert again.reserve(make_terms()).rounds == 3
    assert_holds(again)


def test_bytes_that_were_never_released_are_removed(tmp_path):
    ledger = create(tmp_path)
    ledger.reserve(make_terms())
    kill_at(ledger.folder, "payload-durable", release_first)
    assert len(list((ledger.folder / "releases").iterdir())) == 1
    open_again(ledger)
    assert not list((ledger.folder / "releases").iterdir())


def test_last_line_torn_anywhere_is_moved_aside(tmp_path, caplog):
    path = fill(tmp_path).folder / "ledger.jsonl"
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(start + 1, len(whole), 37):
        path.write_bytes(whole[:end])
        assert SiteLedger(path.parent, IDENTITY).find_head().index == 6
        assert path.read_bytes() == whole[:start]
    assert "ledger_line_torn" in caplog.text


def test_torn_line_is_kept_beside(tmp_path):
    path = fill(tmp_path).folder / "ledger.jsonl"
    with path.open("ab") as file:
        file.write(b'{"body"')
    SiteLedger(path.parent, IDENTITY)
    assert path.with_name("ledger.jsonl.torn-1").read_bytes() == b'{"body"'


def test_line_torn_with_its_end_is_not_repaired(tmp_path):
    path = fill(tmp_path).folder / "ledger.jsonl"
    with path.open("ab") as file:
        file.write(b'{"body"\n')
    with pytest.raises(AuditError, match="line 9: not an entry"):
        SiteLedger(path.parent, IDENTITY)
    assert path.read_bytes().endswith(b'{"body"\n')


def test_kill_while_the_ledger_is_created_leaves_a_folder_that_can_be_used(tmp_path):
    folder = create(tmp_path).folder
    (folder / "ledger.jsonl").write_bytes(b'{"body":{"data')
    assert create(tmp_path).find_head().index == 0


def test_ledger_cut_off_while_in_use_is_refused(tmp_path):
    ledger = fill(tmp_path)
    path = ledger.folder / "ledger.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(AuditError, match="while in use"):
        ledger.reserve(make_terms("third"))


def test_disk_that_is_full_releases_nothing(tmp_path, monkeypatch):
    ledger = create(tmp_path)
    ledger.reserve(make_terms())
    size = (ledger.folder / "ledger.jsonl").stat().st_size

    def refuse(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(LedgerError, match="No space left"):
        release(ledger, 1)
    monkeypatch.undo()
    assert (ledger.folder / "ledger.jsonl").stat().st_size == size
    assert not release(open_again(ledger), 1).repeated


def test_ledger_whose_write_was_interrupted_must_be_opened_again(tmp_path):
    def interrupt(step):
        if step == "entry-written":
            raise KeyboardInterrupt

    ledger = create(tmp_path)
    ledger.reserve(make_terms())
    shaken = open_again(ledger, on_step=interrupt)
    with pytest.raises(KeyboardInterrupt):
        release(shaken, 1)
    with pytest.raises(LedgerError, match="open the ledger again"):
        release(shaken, 2)
    assert release(open_again(ledger), 1).repeated
