"""A check of a whole ledger: finds what was edited, dropped, moved, inserted, cut off or undone.

The chain and the signatures find every change by anyone who lacks the site's key. Whoever has it
can write a new chain, or cut the ledger off at its end: only a head noted elsewhere shows that,
such as those in the coordinator's ledger of a run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtrain.audit.checks import Check
from fedtrain.errors import AuditError, FedtrainError
from fedtrain.ledger.account import Account
from fedtrain.ledger.chain import Chain, locking
from fedtrain.ledger.entries import Committed, Entry
from fedtrain.ledger.releases import ReleaseStore
from fedtrain.privacy.ledger import read_ledger


@dataclass(frozen=True)
class NotedHead:
    """A head that someone noted.

    Attributes:
        digest: SHA-256 of an entry's line, hex.
        index: Its index, where that was noted too.
        source: Who noted it, for messages.
    """

    digest: str
    index: int | None = None
    source: str = "--head"


def read_entries(folder: Path) -> list[Entry]:
    """Read a ledger without changing anything; a torn last line, never acted on, is left out.

    Raises:
        AuditError: An entry is malformed, out of order, not chained or not signed.
        LedgerError: There is no ledger, or it cannot be read.
    """
    with locking(folder, exclusive=False):
        return Chain(folder).read(repair=False)


def read_noted_heads(run: Path, site: str) -> list[NotedHead]:
    """Return the heads of a site that the coordinator noted in a run directory.

    Raises:
        AuditError: The run's ledger cannot be read, or notes no head of this site.
    """
    noted = [
        NotedHead(entry.site_head, entry.site_index, f"{run.name}, round {entry.round}")
        for entry in read_ledger(run / "ledger.jsonl")
        if entry.site == site and entry.site_head is not None
    ]
    if not noted:
        raise AuditError(f"{run}: notes no head of site '{site}'; name the site as the run does")
    return noted


def verify_ledger(
    folder: Path, *, heads: Sequence[NotedHead] = (), public_key: str | None = None
) -> list[Check]:
    """Check a ledger's folder.

    Args:
        folder: The ledger's.
        heads: Noted elsewhere.
        public_key: The site's, hex; without it a ledger that someone wrote anew under another key
            still holds.

    Returns:
        The checks, in order; where the chain does not hold there are no others.

    Raises:
        LedgerError: There is no ledger, or it cannot be read.
    """
    try:
        entries = read_entries(folder)
    except AuditError as error:
        return [Check("chain and signatures", 0, str(error), failed=True)]
    checks = [
        Check("chain and signatures", len(entries)),
        _run("costs and balances", lambda: _check_account(entries)),
        _run("bytes of releases", lambda: _check_releases(folder, entries)),
    ]
    if public_key is not None:
        checks.append(_run("the site's key", lambda: _check_key(entries, public_key)))
    if heads:
        checks.append(_run("heads noted elsewhere", lambda: _check_heads(entries, heads)))
    return checks


def _run(name: str, function: Callable[[], int]) -> Check:
    try:
        return Check(name, function())
    except FedtrainError as error:
        return Check(name, 0, str(error), failed=True)


def _check_account(entries: Sequence[Entry]) -> int:
    Account.replay(entries)
    return len(entries)


def _check_releases(folder: Path, entries: Sequence[Entry]) -> int:
    """Check the bytes that are kept; those of older rounds are removed by rule."""
    store, found = ReleaseStore(folder), 0
    for entry in entries:
        if isinstance(entry.body, Committed):
            payload = store.load(entry.body.release_digest)
            if payload is None:
                continue
            if len(payload) != entry.body.size:
                raise AuditError(
                    f"entry {entry.index}: size = {entry.body.size}, not its release's"
                )
            found += 1
    return found


def _check_key(entries: Sequence[Entry], public_key: str) -> int:
    found = Account.replay(entries).created.public_key
    if found != public_key.lower():
        raise AuditError(f"the ledger is signed by {found[:16]}, not by {public_key[:16]}")
    return 1


def _check_heads(entries: Sequence[Entry], heads: Sequence[NotedHead]) -> int:
    known = {head.digest: head.index for head in (entry.to_head() for entry in entries)}
    for noted in heads:
        if noted.digest not in known:
            where = "" if noted.index is None else f" at index {noted.index}"
            raise AuditError(
                f"{noted.source} notes head {noted.digest[:16]}{where}, which the ledger of"
                f" {len(entries)} entries lacks: it was cut off, or written anew"
            )
        if noted.index is not None and known[noted.digest] != noted.index:
            raise AuditError(
                f"{noted.source} notes head {noted.digest[:16]} at index {noted.index}, it is at"
                f" {known[noted.digest]}"
            )
    return len(heads)
