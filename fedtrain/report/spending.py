"""What each site released in a run, and what its lifetime budget says."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

from fedtrain.audit.evidence import Evidence
from fedtrain.audit.spending import compute_site_epsilons
from fedtrain.canonical import to_canonical
from fedtrain.config import Config
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.report.document import Lifetime, Release, SiteSpending, Spending
from fedtrain.report.figures import round_up

# Keys of a ledger line that differ from round to round, or are not about the mechanism.
_OWN: Final = ("site", "round", "update_digest", "site_head", "site_index")
NO_LIFETIME: Final = (
    "No site signed where its lifetime budget stands: what earlier and later runs on the same data"
    " cost is not known to this report."
)
SOME_LIFETIME: Final = (
    "Lifetime budgets are in Rényi divergence, which adds up exactly; each site signed its own."
)
PARALLEL: Final = (
    "A record lies at one site, so that its epsilon is that site's own; epsilons of different sites"
    " do not add up, but for a person who is known at several."
)
UNBOUNDED: Final = "Nothing bounds what these releases tell of a record."


def build_spending(evidence: Evidence, lifetimes: Mapping[str, Lifetime]) -> Spending:
    """Return every site's releases and epsilon.

    Args:
        evidence: The run directory.
        lifetimes: By site, of those that signed one.
    """
    config, ledger = evidence.config, evidence.ledger
    epsilons = compute_site_epsilons(evidence, ledger)
    own: dict[str, list[LedgerEntry]] = {name: [] for name in list_sites(evidence)}
    for entry in ledger:
        own.setdefault(entry.site, []).append(entry)
    sites = tuple(
        SiteSpending(
            site=site,
            rounds=len(entries),
            epsilon=_to_finite(epsilons.get(site, epsilons.get(""))),
            delta=get_delta(config),
            releases=group_releases(entries),
            lifetime=lifetimes.get(site),
        )
        for site, entries in sorted(own.items())
    )
    return Spending(sites=sites, sentences=_describe(config, sites))


def list_sites(evidence: Evidence) -> list[str]:
    """Return the names of all sites that a run directory knows."""
    names = {str(site["site"]) for site in evidence.sites or ()}
    if evidence.mode != "off":
        names |= set(evidence.roster.sites)
    return sorted(names)


def group_releases(entries: Iterable[LedgerEntry]) -> tuple[Release, ...]:
    """Return equal releases of one site together, with the rounds that they were made in."""
    rounds: dict[str, list[int]] = {}
    for entry in entries:
        terms = entry.model_dump(exclude_none=True, exclude=set(_OWN))
        rounds.setdefault(to_canonical(terms), []).append(entry.round)
    return tuple(
        Release(rounds=write_ranges(found), count=len(found), terms=terms)
        for terms, found in rounds.items()
    )


def write_ranges(numbers: Sequence[int]) -> str:
    """Return rising numbers as ranges: `1-3,5`."""
    runs = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    spans = [[number for _, number in run] for _, run in runs]
    return ",".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)


def get_delta(config: Config) -> float | None:
    """Return the delta of the epsilons by site; None where there are none."""
    if config.privacy.unit == "none":
        return None
    return (
        config.privacy.target_delta
        if config.privacy.covers_records
        else config.privacy.site.target_delta
    )


def _describe(config: Config, sites: Sequence[SiteSpending]) -> tuple[str, ...]:
    sentences = []
    if config.privacy.unit == "none":
        sentences.append(UNBOUNDED)
    elif config.privacy.covers_records:
        sentences.append(PARALLEL)
    lasting = any(site.lifetime is not None for site in sites)
    sentences.append(SOME_LIFETIME if lasting else NO_LIFETIME)
    return tuple(sentences)


def _to_finite(epsilon: float | None) -> float | None:
    if epsilon is None or epsilon == float("inf"):
        return None
    return round_up(epsilon)
