"""Digests, commitments and checks that sites, coordinator and auditor compute alike.

context     run, round, attempt, roster, config, model, cohort, ring: what is announced
transcript  context and the advertisements of U1
view        transcript and U2: all that a site saw before it masks; in every mask key
outcome     view and U3: what the survivors sign
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from fedtrain.secagg.codec import encode
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.graph import Graph, plan_graph
from fedtrain.secagg.keys import compute_digest
from fedtrain.secagg.messages import (
    SHARE_BYTES,
    Advertisement,
    AdvertisementList,
    RoundContext,
    ShareDelivery,
    SurvivorSet,
)
from fedtrain.secagg.roster import is_signed

ADVERTISEMENT: Final = "advertisement"
VECTOR: Final = "masked-vector"
SURVIVORS: Final = "survivors"


def compute_context_digest(context: RoundContext) -> bytes:
    """Return the digest of an announced round."""
    return compute_digest("context", encode(context))


def compute_transcript(context: RoundContext, listed: AdvertisementList) -> bytes:
    """Return the digest of context and advertisements."""
    return compute_digest("transcript", compute_context_digest(context), encode(listed))


def compute_view(transcript: bytes, senders: tuple[str, ...]) -> bytes:
    """Return the digest of transcript and U2."""
    return compute_digest("view", transcript, encode(ShareDelivery(senders, ())))


def compute_outcome(view: bytes, survivors: tuple[str, ...]) -> bytes:
    """Return the digest of view and U3."""
    return compute_digest("outcome", view, encode(SurvivorSet(survivors)))


def commit_seed(context_digest: bytes, site: str, seed: bytes | bytearray) -> bytes:
    """Return the commitment to a site's self-mask seed; hiding, since the seed is uniform."""
    return compute_digest("commit-seed", context_digest, site, bytes(seed))


def commit_share(
    kind: Literal["seed", "key"], share: bytes, *, transcript: bytes, route: tuple[str, str]
) -> bytes:
    """Return the commitment to one share of a dealer for a recipient; each share is uniform."""
    return compute_digest(f"commit-{kind}-share", transcript, *route, share)


def commit_halves(
    share: bytes, *, transcript: bytes, route: tuple[str, str]
) -> tuple[bytes, bytes]:
    """Return the commitments to the two halves of a dealt share: of the seed, of the key."""
    halves = (share[:SHARE_BYTES], share[SHARE_BYTES:])
    return (
        commit_share("seed", halves[0], transcript=transcript, route=route),
        commit_share("key", halves[1], transcript=transcript, route=route),
    )


def get_share_threshold(context: RoundContext, graph: Graph) -> int:
    """Return how many shares of a neighbourhood open a secret."""
    return graph.plan.threshold or context.threshold


def get_signed_parts(context_digest: bytes, one: Advertisement) -> tuple[bytes | str, ...]:
    """Return what the signature of an advertisement covers."""
    return (context_digest, one.site, one.mask_key, one.share_key, one.seed_commitment)


def draw_graph(
    context: RoundContext, advertised: tuple[str, ...], transcript: bytes, **shares: Any
) -> Graph:
    """Return the graph of an attempt; `shares` go to `plan_graph`."""
    return Graph(advertised, plan_graph(len(context.cohort), **shares), seed=transcript)


def check_sites(sites: Sequence[str], allowed: Sequence[str] | Mapping[str, Any]) -> None:
    """Raise unless sites are in canonical order, without repeats, and all allowed."""
    if list(sites) != sorted(set(sites)):
        raise RefusalError("duplicate", "a list of sites repeats one or is out of order")
    known = set(allowed)
    for site in sites:
        if site not in known:
            raise RefusalError(
                "unknown-site", f"site {site!r} does not belong to this round; leave it out"
            )


def check_advertisement(
    one: Advertisement, context_digest: bytes, roster_keys: Mapping[str, bytes]
) -> None:
    """Raise unless the roster's key of the site signed the advertisement for this context."""
    signed = get_signed_parts(context_digest, one)
    if not is_signed(roster_keys[one.site], one.signature, ADVERTISEMENT, *signed):
        raise RefusalError(
            "signature",
            f"keys of {one.site!r} are not signed by its roster key for this context: they were"
            " exchanged, are of another round, or it was shown something else",
            suspect=one.site,
        )


def check_keys_differ(advertisements: Sequence[Advertisement]) -> None:
    """Raise if a public key appears twice."""
    seen: set[bytes] = set()
    for one in advertisements:
        for key in (one.mask_key, one.share_key):
            if key in seen:
                raise RefusalError(
                    "duplicate", f"a key of {one.site!r} appears twice", suspect=one.site
                )
            seen.add(key)
