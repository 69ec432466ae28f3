"""The entries of a site's ledger: one line each, in one canonical form, chained and signed.

An entry holds the SHA-256 of the line before it, so that a line noted elsewhere (a *head*) stands
for all lines up to it: `printf %s LINE | sha256sum` is the whole computation. The signature is
the site's own, over the entry without it.

Guarantees:
    * An entry has one line, and a line that is read has one entry: anything that is not the
      canonical form is refused.
    * A signature under this label is never one of a secure sum or of a roster.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field

from fedtrain.canonical import read_exactly, to_canonical
from fedtrain.errors import AuditError, ConfigError
from fedtrain.ledger.budget import Budget, Unit
from fedtrain.ledger.faults import LedgerError
from fedtrain.privacy.events import Event
from fedtrain.privacy.renyi import NeighbouringRelation
from fedtrain.secagg.roster import Identity, is_signed

LABEL: Final = "site-ledger"
NO_HEAD: Final = "0" * 64  # before the first entry
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Amount = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,11})\.[0-9]{12}$")]
Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,255}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = float | int


@dataclass(frozen=True)
class Head:
    """An entry and, by the chain, all before it.

    Attributes:
        digest: SHA-256 of its line, hex.
        index: Its index, from 0.
    """

    digest: str
    index: int


class Record(BaseModel):
    """A frozen part of an entry that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Created(Record):
    """The first entry: whose ledger it is, and the budget that nobody changes any more.

    Attributes:
        data_set: The site's own name of its data.
        ledger: Random, 32 hex digits: no two ledgers are alike.
        public_key: The key that signs every entry, hex.
        order: The Rényi order of all costs.
        total: What may be spent at that order.
    """

    kind: Literal["created"] = "created"
    data_set: Name
    ledger: str = Field(pattern=r"^[0-9a-f]{32}$")
    public_key: Digest
    epsilon: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    unit: Unit
    neighbouring_relation: NeighbouringRelation
    order: float = Field(gt=1)
    total: Amount

    def to_budget(self) -> Budget:
        """Return the budget."""
        return Budget(self.epsilon, self.delta, self.unit, self.neighbouring_relation)


class Reserved(Record):
    """A run may take so many rounds, whose cost nobody else can spend.

    Attributes:
        run: Identifier of the run, unlike any other run's.
        config_digest: SHA-256 of its config.
        unit: What the run protects.
        mechanism: Name of the kind of event of one round, and
        parameters: all that its cost follows from.
        rounds_asked: Rounds of the whole run.
        rounds: Rounds reserved, at most as many.
        cost: Of one round.
        left: Of the budget, after this entry.
    """

    kind: Literal["reserved"] = "reserved"
    run: Name
    config_digest: Digest
    unit: Unit
    mechanism: str = Field(pattern=r"^[a-z_]{1,64}$")
    parameters: dict[str, Number]
    rounds_asked: Count
    rounds: Count
    cost: Amount
    left: Amount

    def to_event(self) -> Event:
        """Return what happens in one round.

        Raises:
            AuditError: Mechanism or parameters are not known.
        """
        return read_event(self.mechanism, self.parameters)


class Committed(Record):
    """A round's result is about to leave: it is spent.

    Attributes:
        round: From 1, rising within a run.
        config_digest: That of the reservation.
        model_digest: SHA-256 of the model that the round started from.
        release_digest: SHA-256 of what leaves.
        size: Its bytes.
        cost: Of this round, taken from the reservation.
        spent: By all runs, after this entry.
        left: Of the budget, neither spent nor reserved.
    """

    kind: Literal["committed"] = "committed"
    run: Name
    round: int = Field(ge=1, le=2**53)
    config_digest: Digest
    model_digest: Digest
    release_digest: Digest
    size: Count
    cost: Amount
    spent: Amount
    left: Amount


class Closed(Record):
    """A run is over; what it reserved and never released is free again.

    Attributes:
        rounds: Rounds committed.
        refunded: Rounds given back.
        left: Of the budget, after this entry.
    """

    kind: Literal["closed"] = "closed"
    run: Name
    rounds: Count
    refunded: Count
    left: Amount


Body = Created | Reserved | Committed | Closed


class Entry(Record):
    """One line of the ledger.

    Attributes:
        index: From 0.
        previous: SHA-256 of the line before, hex; zeros in the first.
        time: By the site's clock, UTC. Order is the index's, not the clock's.
        body: What happened.
        signature: Ed25519 over all the rest, hex.
    """

    index: Count
    previous: Digest
    time: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    body: Annotated[Body, Field(discriminator="kind")]
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")

    @classmethod
    def sign(cls, body: Body, identity: Identity, *, after: Head | None, time: datetime) -> Self:
        """Return the entry that follows a head, or the first.

        Raises:
            LedgerError: The clock gives no time zone.
        """
        if time.tzinfo is None:
            raise LedgerError(f"time = {time} has no time zone; pass a clock that gives UTC")
        unsigned = {
            "index": 0 if after is None else after.index + 1,
            "previous": NO_HEAD if after is None else after.digest,
            "time": time.astimezone(UTC).strftime(_TIME),
            "body": body.model_dump(),
        }
        signature = identity.sign(LABEL, to_canonical(unsigned)).hex()
        return cls.model_validate({**unsigned, "body": body, "signature": signature})

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read an entry from its line, without the line's end.

        Raises:
            AuditError: The line is not the canonical form of an entry.
        """
        return read_exactly(cls, line, name="an entry")

    def to_json(self) -> str:
        """Return the entry's line, without the line's end: ASCII, keys sorted."""
        return to_canonical(self.model_dump())

    def to_head(self) -> Head:
        """Return the head that this entry is."""
        return Head(hashlib.sha256(self.to_json().encode()).hexdigest(), self.index)

    def is_signed_by(self, public_key: bytes) -> bool:
        """Return whether the signature verifies under a public key."""
        unsigned = to_canonical(self.model_dump(exclude={"signature"}))
        return is_signed(public_key, bytes.fromhex(self.signature), LABEL, unsigned)


def describe_event(event: Event) -> tuple[str, dict[str, Number]]:
    """Return the mechanism's name and parameters of an event.

    Raises:
        TypeError: An event of an unknown type.
    """
    if type(event) not in get_args(Event):
        raise TypeError(f"event of type {type(event).__name__} has no known cost")
    return _name_mechanism(type(event)), asdict(event)


def read_event(mechanism: str, parameters: Mapping[str, Number]) -> Event:
    """Return the event that `describe_event` described.

    Raises:
        AuditError: Mechanism or parameters are not known or out of range.
    """
    kinds = {_name_mechanism(kind): kind for kind in get_args(Event)}
    if mechanism not in kinds:
        raise AuditError(f"mechanism '{mechanism}' is not known; known: {', '.join(kinds)}")
    try:
        event: Event = kinds[mechanism](**parameters)
    except (TypeError, ValueError, ConfigError) as error:
        raise AuditError(f"parameters of {mechanism} do not fit: {error}") from error
    return event


def read_clock() -> datetime:
    """Return the time now, UTC."""
    return datetime.now(UTC)


def _name_mechanism(kind: type[Any]) -> str:
    """Return `PoissonSampledGaussian` as `poisson_sampled_gaussian`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
