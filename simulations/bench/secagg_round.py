"""One real round of secure aggregation in this process, each step measured on its own side.

Every site runs the whole protocol on a vector of the given size, and the sum is compared with the
plain one. Only the transport is left out.
"""

import copy
import hashlib
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import numpy as np

from fedtrain.errors import RunFailedError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import (
    CoordinatorSession,
    Identity,
    MemoryStore,
    SitePolicy,
    SiteSession,
    compute_default_threshold,
    encode,
    make_roster,
    make_training_encoding,
    sign_roster,
)
from fedtrain.secagg.graph import plan_graph
from fedtrain.secagg.masks import Words
from fedtrain.secagg.messages import MaskedVector, RoundContext, ShareDelivery
from fedtrain.secagg.roster import compute_roster_digest

_DIGEST: Final = hashlib.sha256(b"bench").digest()
_NORM: Final = 1.0
T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """How long something took: on the clock, and of processors, all threads together."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: "Span") -> "Span":
        return Span(self.wall + other.wall, self.cpu + other.cpu)


@dataclass
class Costs:
    """What one round cost.

    Attributes:
        keys: advertise and share_keys of each site.
        mask: mask of each site that was timed, in the same order.
        encode: Encoding an update.
        receive: receive_vector of each vector that was timed.
        open: receive_unmasking of all sites together.
        finish: finish, once a repeat.
        site_memory: Peak bytes that mask takes at one site beyond the vector, its own until then.
        coordinator_memory: Peak bytes that the sum, a vector's receipt and finish take.
        shares_up: Bytes from one site of the messages that hold shares.
        others_up: Bytes from one site of all other messages: the vector's, keys and signatures.
        down: Bytes to one site.
    """

    keys: list[Span] = field(default_factory=list)
    mask: list[Span] = field(default_factory=list)
    encode: list[Span] = field(default_factory=list)
    receive: list[Span] = field(default_factory=list)
    open: Span = Span()
    finish: list[Span] = field(default_factory=list)
    site_memory: int = 0
    coordinator_memory: int = 0
    shares_up: int = 0
    others_up: int = 0
    down: int = 0


def run_round(size: int, sites: int, *, dropped: int, threads: int, repeats: int) -> Costs:
    """Run a round.

    Args:
        size: d.
        sites: n.
        dropped: Sites that fall silent after they have shared their keys: the costliest moment.
        threads: How many add masks at a site, and remove them at the coordinator.
        repeats: How often the coordinator's last step is timed.

    Raises:
        RunFailedError: The sum is not the plain one.
    """
    bench = _Round(size, sites, threads)
    plain = bench.encode()
    deliveries = bench.share_keys()
    survivors = bench.context.cohort[: sites - dropped]
    for name in survivors[:-1]:
        bench.mask(name, plain.copy(), deliveries[name])
    bench.mask_traced(survivors[-1], plain.copy(), deliveries[survivors[-1]])
    bench.open(survivors)
    plain *= plain.dtype.type(len(survivors))
    bench.finish(plain, repeats)
    return bench.costs


class _Round:
    """The sites and the coordinator of one round; the stages are called in order."""

    def __init__(self, size: int, sites: int, threads: int) -> None:
        self.costs = Costs()
        self.size = size
        names = tuple(f"site-{number:04d}" for number in range(sites))
        identities = {name: Identity.from_seed(0, name) for name in names}
        root = Identity.from_seed(0, "root")
        keys = {name: one.public_key for name, one in identities.items()}
        roster = sign_roster(make_roster("bench", 1, keys=keys), root)
        policy = SitePolicy(root.public_key, roster)
        self.encoding = make_training_encoding(size, _NORM, cohort=sites, max_weight=100)
        self.context = RoundContext(
            federation="bench",
            run="bench",
            round=1,
            attempt=0,
            roster_digest=compute_roster_digest(roster),
            config_digest=_DIGEST,
            model_digest=_DIGEST,
            cohort=names,
            threshold=compute_default_threshold(sites),
            length=self.encoding.length,
            ring_bits=self.encoding.ring_bits,
            neighbours=plan_graph(sites).neighbours,
        )
        self.sessions = {
            name: SiteSession(
                name,
                identities[name],
                policy=policy,
                store=MemoryStore(),
                generator=SecureGenerator.from_system(),
                threads=threads,
            )
            for name in names
        }
        self.coordinator = CoordinatorSession(self.context, roster, threads=threads)

    def encode(self) -> Words:
        """Encode an update, thrice."""
        update = np.random.default_rng(0).uniform(-_NORM, _NORM, self.size).astype(np.float32)
        parts = {"update": update, "weight": np.array([7])}
        generator = SecureGenerator.from_system()
        for _ in range(3):
            words, span = _time(partial(self.encoding.encode, parts, generator=generator))
            self.costs.encode.append(span)
        return words

    def share_keys(self) -> dict[str, ShareDelivery]:
        """Run rounds 0 and 1 of the protocol; return what each site gets."""
        spans = {}
        for name, session in self.sessions.items():
            advertise = partial(session.advertise, config_digest=_DIGEST, model_digest=_DIGEST)
            own, spans[name] = _time(partial(advertise, self.context))
            self.coordinator.receive_advertisement(own)
        listed = self.coordinator.close_advertisements()
        for name, session in self.sessions.items():
            shares, span = _time(partial(session.share_keys, listed))
            self.costs.keys.append(spans[name] + span)
            self.coordinator.receive_shares(shares)
        deliveries = self.coordinator.close_shares()
        self.costs.others_up += len(encode(own))
        self.costs.shares_up += len(encode(shares))
        delivery = next(iter(deliveries.values()))
        self.costs.down += sum(len(encode(m)) for m in (self.context, listed, delivery))
        return deliveries

    def mask(self, name: str, vector: Words, delivery: ShareDelivery) -> None:
        """Mask one site's vector and hand it in; time both."""
        masked, span = _time(partial(self.sessions[name].mask, vector, delivery))
        self.costs.mask.append(span)
        _, span = _time(partial(self.coordinator.receive_vector, masked))
        self.costs.receive.append(span)

    def mask_traced(self, name: str, vector: Words, delivery: ShareDelivery) -> None:
        """Do so with the memory traced and not timed."""
        masked: MaskedVector
        masked, self.costs.site_memory = _trace(partial(self.sessions[name].mask, vector, delivery))
        _, self.costs.coordinator_memory = _trace(partial(self.coordinator.receive_vector, masked))
        self.costs.others_up += len(encode(masked))

    def open(self, survivors: tuple[str, ...]) -> None:
        """Run round 3, and of round 4 all but the last step."""
        offered = self.coordinator.close_vectors()
        for name in survivors:
            signature = self.sessions[name].sign_survivors(offered)
            self.coordinator.receive_signature(signature)
        signatures = self.coordinator.close_signatures()
        for name in survivors:
            revealed = self.sessions[name].unmask(signatures)
            _, span = _time(partial(self.coordinator.receive_unmasking, revealed))
            self.costs.open += span
        self.costs.others_up += len(encode(signature))
        self.costs.shares_up += len(encode(revealed))
        self.costs.down += len(encode(offered)) + len(encode(signatures))

    def finish(self, expected: Words, repeats: int) -> None:
        """Remove the masks, from copies and timed, then once with the memory traced."""
        for _ in range(repeats):
            session = copy.deepcopy(self.coordinator)
            total, span = _time(session.finish)
            self.costs.finish.append(span)
            if not np.array_equal(total, expected):
                raise RunFailedError("the unmasked sum is not the plain sum")
        _, memory = _trace(self.coordinator.finish)
        peak = max(self.costs.coordinator_memory, memory)
        self.costs.coordinator_memory = peak + expected.nbytes  # the sum was there before


def _time(action: Callable[[], T]) -> tuple[T, Span]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, Span(time.perf_counter() - wall, time.process_time() - cpu)


def _trace(action: Callable[[], T]) -> tuple[T, int]:
    """Return an action's result and the peak of what it took beyond what was there before."""
    tracemalloc.start()
    try:
        result = action()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
