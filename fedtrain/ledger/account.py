"""What a ledger's entries add up to: the balance, and what each run reserved and committed.

The same function applies an entry that is read and one that is about to be written, so that no
entry is ever written that a reader would refuse.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from fedtrain.errors import AuditError
from fedtrain.ledger.budget import Budget, compute_total, format_amount, is_cost, parse_amount
from fedtrain.ledger.entries import Body, Closed, Committed, Created, Entry, Head, Reserved


@dataclass(frozen=True)
class Balance:
    """Where the budget stands, in units of 10^-12 of Rényi divergence; the four add up.

    Attributes:
        total: The budget.
        spent: By rounds that were committed.
        reserved: For rounds that may still come.
        left: Neither.
    """

    total: int
    spent: int
    reserved: int

    @property
    def left(self) -> int:
        """Return what a new run could reserve."""
        return self.total - self.spent - self.reserved


@dataclass
class RunAccount:
    """One run, so far.

    Attributes:
        terms: Its reservation.
        cost: Of one round.
        head: Its reservation's.
        rounds: Its committed rounds, each with its entry and that entry's head.
        is_closed: Whether it can never commit again.
    """

    terms: Reserved
    cost: int
    head: Head
    rounds: dict[int, tuple[Committed, Head]] = field(default_factory=dict)
    is_closed: bool = False

    @property
    def rounds_left(self) -> int:
        """Return how many reserved rounds may still be committed."""
        return 0 if self.is_closed else self.terms.rounds - len(self.rounds)

    @property
    def last_round(self) -> int:
        """Return the last committed round, 0 before the first."""
        return next(reversed(self.rounds), 0)


class Account:
    """A ledger's state after its last entry.

    Attributes:
        created: The first entry.
        runs: Account of each run, in order of their reservations.
        head: The last entry; None in the middle of the first.
    """

    def __init__(self, created: Created, head: Head | None = None) -> None:
        """Start from the first entry.

        Raises:
            AuditError: Its total is above what its epsilon and delta allow.
        """
        self.created = created
        self.runs: dict[str, RunAccount] = {}
        self.head = head
        self._total = parse_amount(created.total)
        self._spent = 0
        self._reserved = 0
        allowed = compute_total(self.budget, created.order)
        if not 0 < self._total <= allowed + allowed // 10**9:
            raise AuditError(
                f"total = {created.total} is not what epsilon = {created.epsilon:g} at delta ="
                f" {created.delta:g} allows at order {created.order:g}: {format_amount(allowed)}"
            )

    @classmethod
    def replay(cls, entries: Iterable[Entry]) -> Self:
        """Return the account of entries that are whole and in order.

        Raises:
            AuditError: An entry, named by its index, does not add up.
        """
        account: Self | None = None
        for entry in entries:
            try:
                if account is None:
                    account = cls(_expect_created(entry.body), entry.to_head())
                else:
                    account.apply(entry.body, entry.to_head())
            except AuditError as error:
                raise AuditError(f"entry {entry.index}: {error}") from error
        if account is None:
            raise AuditError("the ledger has no entries; restore it from a copy")
        return account

    @property
    def budget(self) -> Budget:
        """Return the budget."""
        return self.created.to_budget()

    @property
    def balance(self) -> Balance:
        """Return where the budget stands."""
        return Balance(self._total, self._spent, self._reserved)

    def apply(self, body: Body, head: Head) -> None:
        """Take an entry in.

        Raises:
            AuditError: It does not add up; the account is as before.
        """
        match body:
            case Created():
                raise AuditError("the ledger is created a second time")
            case Reserved():
                self._apply_reserved(body, head)
            case Committed():
                self._apply_committed(body, head)
            case Closed():
                self._apply_closed(body)
        self.head = head

    def get_run(self, run: str) -> RunAccount:
        """Return a run's account.

        Raises:
            AuditError: Nothing was reserved for it.
        """
        if run not in self.runs:
            raise AuditError(f"run '{run}' has no reservation")
        return self.runs[run]

    def _apply_reserved(self, body: Reserved, head: Head) -> None:
        if body.run in self.runs:
            raise AuditError(f"run '{body.run}' is reserved a second time")
        cost = parse_amount(body.cost)
        order, unit = self.created.order, body.unit
        if not is_cost(cost, body.to_event(), self.budget, order=order, unit=unit):
            raise AuditError(f"cost = {body.cost} is not that of its event at order {order:g}")
        if not 1 <= body.rounds <= body.rounds_asked:
            raise AuditError(f"rounds = {body.rounds} of {body.rounds_asked} asked")
        after = self.balance.left - cost * body.rounds
        _check_amount("left", body.left, after)
        self._reserved += cost * body.rounds
        self.runs[body.run] = RunAccount(body, cost, head)

    def _apply_committed(self, body: Committed, head: Head) -> None:
        account = self.get_run(body.run)
        if account.rounds_left < 1:
            raise AuditError(f"run '{body.run}' has no reserved round left")
        if body.round <= account.last_round:
            raise AuditError(
                f"round {body.round} of run '{body.run}' after round {account.last_round}"
            )
        if body.config_digest != account.terms.config_digest:
            raise AuditError(f"config_digest is not that of run '{body.run}'")
        _check_amount("cost", body.cost, account.cost)
        _check_amount("spent", body.spent, self._spent + account.cost)
        _check_amount("left", body.left, self.balance.left)
        self._spent += account.cost
        self._reserved -= account.cost
        account.rounds[body.round] = (body, head)

    def _apply_closed(self, body: Closed) -> None:
        account = self.get_run(body.run)
        if account.is_closed:
            raise AuditError(f"run '{body.run}' is closed a second time")
        if (body.rounds, body.refunded) != (len(account.rounds), account.rounds_left):
            raise AuditError(
                f"rounds = {body.rounds} and refunded = {body.refunded} of run '{body.run}';"
                f" due are {len(account.rounds)} and {account.rounds_left}"
            )
        refund = account.cost * account.rounds_left
        _check_amount("left", body.left, self.balance.left + refund)
        self._reserved -= refund
        account.is_closed = True


def _check_amount(name: str, text: str, amount: int) -> None:
    if amount < 0:
        raise AuditError(f"{name} would be {-amount} units of 10^-12 below zero: overspent")
    if parse_amount(text) != amount:
        raise AuditError(f"{name} = {text} does not add up; due is {format_amount(amount)}")


def _expect_created(body: Body) -> Created:
    if not isinstance(body, Created):
        raise AuditError(f"the first entry is '{body.kind}', not 'created'")
    return body
