"""One real round of secure aggregation in this process, each step timed by its side.

Every site runs the whole protocol on a vector of the given size; the sum is compared with the
plain one. Only the transport is left out.
"""

import copy
import hashlib
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fedtrain.errors import RunFailedError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import (
    CoordinatorSession,
    MemoryStore,
    SitePolicy,
    SiteSession,
    compute_default_threshold,
)
from fedtrain.secagg.codec import encode
from fedtrain.secagg.encoding import make_training_encoding
from fedtrain.secagg.graph import plan_graph
from fedtrain.secagg.masks import Words
from fedtrain.secagg.messages import RoundContext
from fedtrain.secagg.roster import Identity, compute_roster_digest, make_roster, sign_roster

_DIGEST: Final = hashlib.sha256(b"bench").digest()
_NORM: Final = 1.0


@dataclass
class Costs:
    """What one round cost.

    Attributes:
        keys: Seconds of advertise and share_keys, a number for each site.
        mask: Seconds of mask, likewise.
        encode: Seconds to encode an update.
        receive: Seconds of receive_vector, likewise.
        open: Seconds of receive_unmasking, all sites together.
        finish: Seconds of finish, one number a repeat.
        site_memory: Peak bytes that encode and mask of one site take beyond the update itself.
        coordinator_memory: Peak bytes that the vectors and finish take at the coordinator.
        up: Bytes from one site: of its vector's message, of shares, of the rest.
        down: Bytes to one site.
    """

    keys: list[float] = field(default_factory=list)
    mask: list[float] = field(default_factory=list)
    encode: float = 0.0
    receive: list[float] = field(default_factory=list)
    open: float = 0.0
    finish: list[float] = field(default_factory=list)
    site_memory: int = 0
    coordinator_memory: int = 0
    up: dict[str, int] = field(default_factory=dict)
    down: int = 0


def run_round(size: int, sites: int, *, dropped: int, threads: int, repeats: int) -> Costs:
    """Run a round.

    Args:
        size: d.
        sites: n.
        dropped: Sites that fall silent after they have shared their keys: the costliest moment.
        threads: How many remove masks.
        repeats: How often the coordinator's last step is timed.

    Raises:
        RunFailedError: The sum is not the plain one.
    """
    return _Round(size, sites, threads).run(dropped, repeats)


class _Round:
    def __init__(self, size: int, sites: int, threads: int) -> None:
        self.costs = Costs()
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
            )
            for name in names
        }
        self.coordinator = CoordinatorSession(self.context, roster, threads=threads)
        self.size = size

    def run(self, dropped: int, repeats: int) -> Costs:
        """Run all stages; the first sites survive, the last ones drop out."""
        plain = self._encode()
        deliveries = self._share_keys()
        survivors = self.context.cohort[: len(self.context.cohort) - dropped]
        for number, name in enumerate(survivors):
            vector = plain.copy()
            if number == len(survivors) - 1:
                self._mask_traced(name, vector, deliveries[name])
            else:
                self._mask(name, vector, deliveries[name])
        self._open(survivors)
        expected = plain * plain.dtype.type(len(survivors))
        self._finish(expected, repeats)
        return self.costs

    def _encode(self) -> Words:
        update = np.random.default_rng(0).uniform(-_NORM, _NORM, self.size).astype(np.float32)
        parts = {"update": update, "weight": np.array([7])}
        generator = SecureGenerator.from_system()
        found = []
        for _ in range(2):
            words, seconds = _time(lambda: self.encoding.encode(parts, generator=generator))
            found.append(seconds)
        self.costs.encode = min(found)
        return words

    def _share_keys(self) -> dict[str, Any]:
        advertised = {}
        for name, session in self.sessions.items():
            own, advertised[name] = _time(
                lambda session=session: session.advertise(
                    self.context, config_digest=_DIGEST, model_digest=_DIGEST
                )
            )
            self.coordinator.receive_advertisement(own)
        listed = self.coordinator.close_advertisements()
        for name, session in self.sessions.items():
            shares, seconds = _time(lambda session=session: session.share_keys(listed))
            self.costs.keys.append(advertised[name] + seconds)
            self.coordinator.receive_shares(shares)
        deliveries = self.coordinator.close_shares()
        first = self.context.cohort[0]
        self.costs.up = {"keys": len(encode(own)), "shares": len(encode(shares))}
        self.costs.down = sum(len(encode(m)) for m in (self.context, listed, deliveries[first]))
        return deliveries

    def _mask(self, name: str, vector: Words, delivery: Any) -> None:
        masked, seconds = _time(lambda: self.sessions[name].mask(vector, delivery))
        self.costs.mask.append(seconds)
        _, seconds = _time(lambda: self.coordinator.receive_vector(masked))
        self.costs.receive.append(seconds)

    def _mask_traced(self, name: str, vector: Words, delivery: Any) -> None:
        """Mask and receive with memory traced instead of time."""
        masked, self.costs.site_memory = _trace(lambda: self.sessions[name].mask(vector, delivery))
        _, self.costs.coordinator_memory = _trace(lambda: self.coordinator.receive_vector(masked))
        self.costs.up["vector"] = len(encode(masked))

    def _open(self, survivors: tuple[str, ...]) -> None:
        offered = self.coordinator.close_vectors()
        for name in survivors:
            signature = self.sessions[name].sign_survivors(offered)
            self.coordinator.receive_signature(signature)
        signatures = self.coordinator.close_signatures()
        for name in survivors:
            revealed = self.sessions[name].unmask(signatures)
            _, seconds = _time(
                lambda revealed=revealed: self.coordinator.receive_unmasking(revealed)
            )
            self.costs.open += seconds
        self.costs.up["keys"] += len(encode(signature))
        self.costs.up["shares"] += len(encode(revealed))
        self.costs.down += len(encode(offered)) + len(encode(signatures))

    def _finish(self, expected: Words, repeats: int) -> None:
        for _ in range(repeats):
            session = copy.deepcopy(self.coordinator)
            total, seconds = _time(session.finish)
            self.costs.finish.append(seconds)
            if not np.array_equal(total, expected):
                raise RunFailedError("the unmasked sum is not the plain sum")
        del session, total
        _, memory = _trace(self.coordinator.finish)
        # The sum itself was there before: it is the coordinator's first m words.
        self.costs.coordinator_memory = expected.nbytes + max(self.costs.coordinator_memory, memory)


def _time(action: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


def _trace(action: Callable[[], Any]) -> tuple[Any, int]:
    """Return an action's result and the peak of what it took beyond what was there before."""
    tracemalloc.start()
    try:
        result = action()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
