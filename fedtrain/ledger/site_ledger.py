"""A site's ledger at work: reserve before the first step, commit before anything leaves.

One folder a data set: `ledger.jsonl` (the entries), `releases/` (what left, to be sent again),
`lock`. It lies on a local disk. Runs of any federations share it, from any number of processes and
threads.

Guarantees:
    * What `release` returns is on disk, paid for and signed for before it returns; a kill or a
      power cut at any moment never under-counts.
    * A round of a run is released once. Asked again, the site gives the same bytes and pays
      nothing; for another model it refuses.
    * All reservations and commits together never exceed the budget, whichever processes race.
    * No two runs share a reservation: run identifiers must differ between federations.

References:
    `fedtrain.ledger.budget` for the theorem that the sum of costs rests on.
"""

import logging
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from numpy import ascontiguousarray
from numpy.typing import NDArray
from pydantic import ValidationError

from fedtrain.durable import sync_folder
from fedtrain.ledger.account import Account, Balance, RunAccount
from fedtrain.ledger.budget import (
    Budget,
    choose_order,
    compute_total,
    format_amount,
)
from fedtrain.ledger.chain import FILE, LOCK, Chain, Hook, locking
from fedtrain.ledger.entries import (
    Body,
    Closed,
    Committed,
    Created,
    Entry,
    Head,
    read_clock,
)
from fedtrain.ledger.faults import BudgetError, LedgerError
from fedtrain.ledger.releases import FOLDER, ReleaseStore
from fedtrain.ledger.terms import (
    Terms,
    compute_round_cost,
    count_affordable,
    make_reserved,
    match_terms,
)
from fedtrain.secagg.roster import Identity

KEPT_RELEASES: Final = 16
Clock = Callable[[], datetime]
_LOG: Final = logging.getLogger("fedtrain.ledger")
Payload = bytes | bytearray | memoryview | NDArray[Any]


@dataclass(frozen=True)
class Reservation:
    """What a run may do.

    Attributes:
        run: The run.
        rounds: Rounds reserved: all that were asked for, or those that the budget can bear.
        rounds_asked: Rounds asked for.
        rounds_left: Rounds that may still be committed.
        head: The entry of the reservation.
    """

    run: str
    rounds: int
    rounds_asked: int
    rounds_left: int
    head: Head


@dataclass(frozen=True)
class Released:
    """What may leave the site.

    Attributes:
        payload: The bytes.
        digest: Their SHA-256, hex.
        head: Digest of the entry that commits them, hex: for the coordinator to note.
        index: Index of that entry.
        repeated: Whether they were committed before, here or by another process.
    """

    payload: bytes
    digest: str
    head: str
    index: int
    repeated: bool


class SiteLedger:
    """The ledger of one data set at one site; opened by as many processes as there are runs."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        *,
        clock: Clock = read_clock,
        kept_releases: int = KEPT_RELEASES,
        on_step: Hook | None = None,
    ) -> None:
        """Open the ledger in a folder, check it whole, and recover from a crash.

        Args:
            folder: As given to `create`.
            identity: The site's, as in `create`.
            clock: Gives the time of entries, with a time zone.
            kept_releases: Releases a run that can be sent again, the last ones; a coordinator
                never goes back further than its last checkpoint. Of a closed run one is kept.
            on_step: Called with the name of each step of a write; for tests of crashes.

        Raises:
            LedgerError: There is no ledger, it is not this identity's, or cannot be read.
            AuditError: An entry does not hold.
        """
        self.folder = folder
        self._identity = identity
        self._clock = clock
        self._kept = kept_releases
        self._on_step: Hook = on_step or (lambda _: None)
        self._chain = Chain(folder, on_step=self._on_step)
        self._releases = ReleaseStore(folder, on_step=self._on_step)
        self._is_current = True
        with locking(folder):
            self._account = Account.replay(self._chain.read(repair=True))
            self._check_key()
            self._releases.keep_only(self._list_kept())

    @classmethod
    def create(
        cls,
        folder: Path,
        data_set: str,
        *,
        budget: Budget,
        identity: Identity,
        clock: Clock = read_clock,
    ) -> Self:
        """Make a new ledger.

        Args:
            folder: New or empty; its parent exists. Only its owner may read it.
            data_set: The site's own name of its data.
            budget: For life.
            identity: Signs every entry.
            clock: Gives the time of entries, with a time zone.

        Raises:
            LedgerError: The folder is in use or cannot be written.
            ConfigError: The budget admits nothing.
        """
        order = choose_order(budget)
        try:
            body = Created(
                data_set=data_set,
                ledger=secrets.token_hex(16),
                public_key=identity.public_key.hex(),
                epsilon=float(budget.epsilon),
                delta=budget.delta,
                unit=budget.unit,
                neighbouring_relation=budget.neighbouring_relation,
                order=order,
                total=format_amount(compute_total(budget, order)),
            )
        except ValidationError as error:
            raise LedgerError(
                f"data_set = {data_set!r} is no name: 1 to 255 characters, no control characters"
            ) from error
        _make_folder(folder)
        with locking(folder):
            chain = Chain(folder)
            if chain.read(repair=True):
                raise LedgerError(f"{folder}: holds a ledger already; choose another folder")
            chain.append(Entry.sign(body, identity, after=None, time=clock()))
            sync_folder(folder)
        return cls(folder, identity, clock=clock)

    @property
    def created(self) -> Created:
        """Return the first entry: budget, order, data set."""
        return self._account.created

    def compute_balance(self) -> Balance:
        """Return where the budget stands now, other processes' entries included."""
        with self._reading() as account:
            return account.balance

    def find_head(self) -> Head:
        """Return the head now: to be noted elsewhere, where nobody at the site can change it."""
        with self._reading():
            return self._find_head()

    def find_reservation(self, run: str) -> Reservation | None:
        """Return what is reserved for a run, or None."""
        with self._reading() as account:
            return _describe_reservation(account.runs[run]) if run in account.runs else None

    def reserve(self, terms: Terms, *, partial: bool = True) -> Reservation:
        """Reserve a run's rounds, before its first step and before data is opened.

        Asked again with the same terms, it returns the same reservation.

        Args:
            terms: What the run asks for.
            partial: Reserve fewer rounds where the budget cannot bear all.

        Raises:
            BudgetError: The budget cannot bear one round (`spent`, or `misfit` where not even a
                fresh budget could) or, without `partial`, not all (`misfit`); the run is reserved
                on other terms (`misfit`), or closed (`replay`).
            TypeError: An event of an unknown type.
        """
        with self._reading() as account:
            if terms.run in account.runs:
                return _describe_reservation(match_terms(account.runs[terms.run], terms))
            cost = compute_round_cost(terms, account.created)
            rounds = count_affordable(terms, cost, balance=account.balance, partial=partial)
            left = account.balance.left - cost * rounds
            self._append(make_reserved(terms, cost, rounds=rounds, left=left))
            _LOG.info("ledger_reserved rounds=%d asked=%d", rounds, terms.rounds)
            return _describe_reservation(account.runs[terms.run])

    def find_release(self, run: str, round: int, *, model_digest: str) -> Released | None:
        """Return what a round released before; None where it may release now.

        Raises:
            BudgetError: It may not, as in `release`.
            AuditError: An entry, or the bytes kept of a release, do not hold.
        """
        _check_digest(model_digest)
        with self._reading() as account:
            return self._find_released(account, run, round, model_digest)

    def release(
        self, run: str, round: int, *, model_digest: str, compute: Callable[[], Payload]
    ) -> Released:
        """Compute what a round releases, pay for it, and return it; or what was released before.

        Args:
            run: A reserved run.
            round: From 1; rounds may be left out, but never go back.
            model_digest: SHA-256 of the model that the round starts from, hex.
            compute: Gives the payload; called at most once, outside the lock. An array counts as
                its bytes.

        Raises:
            BudgetError: No reserved round is left (`spent`); the round was released for another
                model, is over, or its bytes are not kept any more (`replay`); nothing is reserved
                (`misfit`). All before `compute` is called.
            AuditError: An entry, or the bytes kept of a release, do not hold.
            LedgerError: The disk refused; nothing was released.
        """
        before = self.find_release(run, round, model_digest=model_digest)
        if before is not None:
            return before
        payload = _to_bytes(compute())
        self._on_step("computed")
        with self._reading() as account:
            before = self._find_released(account, run, round, model_digest)
            if before is not None:
                return before
            self._on_step("locked")
            digest = self._releases.save(payload)
            head = self._commit(account.runs[run], round, model_digest, digest, len(payload))
            self._releases.keep_only(self._list_kept())
        _LOG.info("ledger_committed round=%d index=%d", round, head.index)
        return Released(payload, digest, head.digest, head.index, repeated=False)

    def close(self, run: str) -> int:
        """End a run: give back the rounds it reserved and never committed.

        Returns:
            Rounds given back; 0 where it was closed before.

        Raises:
            BudgetError: Nothing is reserved for it (`misfit`).
        """
        with self._reading() as account:
            own = _get_run(account, run)
            if own.is_closed:
                return 0
            refunded = own.rounds_left
            left = account.balance.left + own.cost * refunded
            self._append(
                Closed(run=run, rounds=len(own.rounds), refunded=refunded, left=format_amount(left))
            )
            self._releases.keep_only(self._list_kept())
            _LOG.info("ledger_closed refunded=%d", refunded)
            return refunded

    @contextmanager
    def _reading(self) -> Iterator[Account]:
        """Hold the lock, with the entries of other processes taken in."""
        with locking(self.folder):
            if not self._is_current:
                raise LedgerError(f"{self.folder}: a write was interrupted; open the ledger again")
            self._is_current = False
            for entry in self._chain.read(repair=True):
                self._account.apply(entry.body, entry.to_head())
            self._is_current = True
            yield self._account

    def _find_head(self) -> Head:
        if self._account.head is None:
            raise LedgerError(f"{self.folder}: the ledger has no entries; restore it from a copy")
        return self._account.head

    def _append(self, body: Body) -> Head:
        entry = Entry.sign(body, self._identity, after=self._find_head(), time=self._clock())
        head = entry.to_head()
        self._is_current = False
        self._account.apply(body, head)  # first: what does not add up is not written
        self._chain.append(entry)
        self._is_current = True
        return head

    def _commit(
        self, own: RunAccount, round: int, model_digest: str, digest: str, size: int
    ) -> Head:
        balance = self._account.balance
        return self._append(
            Committed(
                run=own.terms.run,
                round=round,
                config_digest=own.terms.config_digest,
                model_digest=model_digest,
                release_digest=digest,
                size=size,
                cost=format_amount(own.cost),
                spent=format_amount(balance.spent + own.cost),
                left=format_amount(balance.left),
            )
        )

    def _find_released(
        self, account: Account, run: str, round: int, model_digest: str
    ) -> Released | None:
        """Return what the round released before; None where it may release now."""
        own = _get_run(account, run)
        if round not in own.rounds:
            _check_next(own, round)
            return None
        entry, head = own.rounds[round]
        if entry.model_digest != model_digest:
            raise BudgetError(
                "replay",
                f"round {round} of run '{run}' was released for model {entry.model_digest[:12]},"
                f" not {model_digest[:12]}; the coordinator must resume from its last round",
            )
        payload = self._releases.load(entry.release_digest)
        if payload is None:
            raise BudgetError(
                "replay",
                f"round {round} of run '{run}' was released, but its bytes are not kept any more:"
                f" only those of the last {self._kept} rounds are",
            )
        return Released(payload, entry.release_digest, head.digest, head.index, repeated=True)

    def _list_kept(self) -> set[str]:
        return {
            entry.release_digest
            for own in self._account.runs.values()
            for entry, _ in list(own.rounds.values())[-(1 if own.is_closed else self._kept) :]
        }

    def _check_key(self) -> None:
        own, found = self._identity.public_key.hex(), self.created.public_key
        if own != found:
            raise LedgerError(
                f"{self.folder}: the ledger is signed by {found[:16]}, this identity is"
                f" {own[:16]}; use the site's own key"
            )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / LOCK).touch(mode=0o600)
        (folder / FOLDER).mkdir(mode=0o700, exist_ok=True)
        (folder / FILE).touch(mode=0o600)
        sync_folder(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise LedgerError(f"{folder}: cannot be written ({error.strerror})") from error


def _get_run(account: Account, run: str) -> RunAccount:
    if run not in account.runs:
        raise BudgetError(
            "misfit", f"run '{run}' has no reservation; reserve before the first step"
        )
    return account.runs[run]


def _check_next(own: RunAccount, round: int) -> None:
    """Raise BudgetError unless the run may commit this round."""
    run = own.terms.run
    if own.is_closed:
        raise BudgetError("replay", f"run '{run}' was closed; start a new run")
    if round <= own.last_round:
        raise BudgetError(
            "replay", f"round {round} of run '{run}' comes after round {own.last_round}"
        )
    if own.rounds_left < 1:
        raise BudgetError("spent", f"run '{run}' has used its {own.terms.rounds} reserved rounds")


def _check_digest(digest: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise LedgerError(f"model_digest = {digest[:80]!r} is not 64 hex digits; give a SHA-256")


def _describe_reservation(own: RunAccount) -> Reservation:
    return Reservation(
        run=own.terms.run,
        rounds=own.terms.rounds,
        rounds_asked=own.terms.rounds_asked,
        rounds_left=own.rounds_left,
        head=own.head,
    )


def _to_bytes(payload: Payload) -> bytes:
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    return ascontiguousarray(payload).tobytes()
