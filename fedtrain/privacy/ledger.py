"""The ledger: one line a site and round that says what was released, under which mechanism.

A line holds facts, no epsilon; anyone who has the lines recomputes the cost. Lines are JSON in
one canonical form, so that equal entries are equal bytes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedtrain.canonical import read_exactly, to_canonical
from fedtrain.errors import AuditError
from fedtrain.privacy.accounting import PrivacyCost, compute_cost
from fedtrain.privacy.events import MAX_STEPS, Event, PoissonSampledGaussian, Unprotected
from fedtrain.privacy.renyi import NeighbouringRelation
from fedtrain.privacy.site_noise import NoiseShare

_PARAMETERS = (
    "noise_multiplier",
    "sample_rate",
    "steps",
    "max_grad_norm",
    "expected_batch_size",
)


class LedgerEntry(BaseModel):
    """What one site released in one round; frozen.

    Attributes:
        site: The site's name.
        round: The round, from 1.
        mechanism: `poisson_sampled_gaussian` (DP-SGD; all five parameters are given) or `none`
            (an unprotected update; none of them is).
        noise_multiplier: Noise standard deviation / max_grad_norm.
        sample_rate: Probability of a record in a step.
        steps: Steps of this round.
        max_grad_norm: L2 clip of a record's gradient.
        expected_batch_size: What each noisy sum was divided by.
        noise_share: The noise that the site added inside the secure sum; None without site-level
            privacy.
        update_digest: SHA-256 of what was released, in hex; None for a plain update without
            protection, and where a site was asked and no answer came: it may have released one,
            and so has spent.
        site_head: Head of the site's own ledger (`fedtrain.ledger`) after this release: SHA-256
            of its last line, in hex. Noted here, it shows a later roll-back there.
        site_index: Index of that entry.

    Guarantees:
        * An entry has one line, and a line that is read has one entry: anything that is not the
          canonical form (other order or spacing, duplicate, unknown or missing keys) is refused.
        * A protected entry without all its parameters, or an unprotected one with any, cannot be
          made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    site: str = Field(min_length=1, max_length=255)
    round: int = Field(ge=1, le=2**53)
    mechanism: Literal["poisson_sampled_gaussian", "none"]
    noise_multiplier: float | None = Field(None, ge=0)
    sample_rate: float | None = Field(None, ge=0, le=1)
    steps: int | None = Field(None, ge=0, le=MAX_STEPS)
    max_grad_norm: float | None = Field(None, gt=0)
    expected_batch_size: float | None = Field(None, gt=0)
    noise_share: NoiseShare | None = None
    update_digest: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    site_head: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    site_index: int | None = Field(None, ge=0, le=2**53)

    @model_validator(mode="after")
    def _check(self) -> Self:
        wanted = self.mechanism != "none"
        for name in _PARAMETERS:
            if (getattr(self, name) is not None) != wanted:
                state = "missing" if wanted else "given"
                raise ValueError(f"{name} is {state} with mechanism = '{self.mechanism}'")
        return self

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read an entry from its line, without the line's end.

        Raises:
            AuditError: The line is not the canonical form of an entry.
        """
        return read_exactly(cls, line, name="a ledger entry")

    def to_json(self) -> str:
        """Return the entry's line, without the line's end: ASCII, keys sorted."""
        return to_canonical(self.model_dump(exclude_none=True))

    def to_event(self) -> Event:
        """Return what happened, for accounting."""
        if self.noise_multiplier is None or self.sample_rate is None or self.steps is None:
            return Unprotected()
        return PoissonSampledGaussian(self.noise_multiplier, self.sample_rate, self.steps)


def read_ledger(path: Path) -> list[LedgerEntry]:
    """Read a ledger file, whole.

    Args:
        path: File of lines, each ended by a line feed; an empty file has no entries.

    Returns:
        The entries, in order.

    Raises:
        AuditError: The file cannot be read, or a line (named by its number, from 1) is malformed
            or cut short.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise AuditError(f"{path.name}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise AuditError(f"{path.name}: line {line}: not UTF-8 text; restore the file") from error
    *lines, rest = text.split("\n")
    if rest:
        raise AuditError(
            f"{path.name}: line {len(lines) + 1}: cut short, without a line's end;"
            " remove it if its release was never committed"
        )
    return [_read_line(path.name, number, line) for number, line in enumerate(lines, start=1)]


def compute_costs(
    entries: Iterable[LedgerEntry],
    *,
    delta: float,
    neighbouring_relation: NeighbouringRelation = "add_remove",
) -> dict[str, PrivacyCost]:
    """Compute what each site has spent: the composition of its own entries, of nobody else's.

    A record lies at one site, so that other sites' releases are post-processing to it; neither
    the choice of sites nor aggregation is claimed to amplify anything.

    Args:
        entries: Entries of any sites and rounds.
        delta: Delta of each cost.
        neighbouring_relation: What neighbours are.

    Returns:
        Cost by site, sites in the order of their first entry.
    """
    events: dict[str, list[Event]] = {}
    for entry in entries:
        events.setdefault(entry.site, []).append(entry.to_event())
    return {
        site: compute_cost(own, delta=delta, neighbouring_relation=neighbouring_relation)
        for site, own in events.items()
    }


def find_max_cost(costs: Mapping[str, PrivacyCost]) -> PrivacyCost:
    """Return the federation's cost: the largest over sites (parallel composition).

    Raises:
        AuditError: There are no sites.
    """
    if not costs:
        raise AuditError("the ledger has no entries; nothing was released, so nothing to cost")
    return max(costs.values(), key=lambda cost: cost.epsilon)


def _read_line(name: str, number: int, line: str) -> LedgerEntry:
    try:
        return LedgerEntry.from_json(line)
    except AuditError as error:
        raise AuditError(f"{name}: line {number}: {error}; restore it from a copy") from error
