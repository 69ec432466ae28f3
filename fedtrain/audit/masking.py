"""Is a masked vector noise to whoever sees it alone? Method `masking`.

One round of the protocol is run by its own sessions on updates that are made up; what the
coordinator receives of one site is then compared with uniform noise and with the site's update.

Shapes: d coordinates of an update, k bits of a word.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chisquare, t

from fedtrain.audit.findings import Finding
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.plants import Subject, find_plant, make_subject
from fedtrain.config import SecureAggregationSection
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import (
    Block,
    CoordinatorSession,
    MemoryStore,
    SiteSession,
    VectorEncoding,
    compute_default_threshold,
)
from fedtrain.secagg.graph import plan_graph
from fedtrain.secagg.masks import Words
from fedtrain.secagg.messages import RoundContext
from fedtrain.secagg.roster import compute_roster_digest
from fedtrain.secagg.simulated import FEDERATION, make_identity, make_policy, make_signed_roster

METHOD: Final = "masking"
SIZE: Final = 2**15
MIN_SITES: Final = 4
_DIGEST: Final = hashlib.sha256(b"fedtrain/audit/masking").digest()
_WORDS: Final = {
    "high_byte": "the high bits of masked words are not uniform",
    "low_byte": "the low bits of masked words are not uniform",
    "correlation": "masked words go with the site's update",
}


class _UnmaskedSession(SiteSession):
    """The planted fault: a session whose masks are none."""

    def _derive_masks(self, view: bytes, senders: object) -> tuple[list[bytes], list[bytes]]:
        del view, senders
        return [], []


@dataclass(frozen=True)
class Masking:
    """What a coordinator sees of one site, compared with noise.

    Attributes:
        p_values: Of the checks, by name; each at most p with probability at most p, nearly, if
            masked words are uniform.
        correlation: Between masked words and the site's update.
        sum_is_exact: Whether the sum of the round is that of the vectors; None where the round was
            not ended, since its masks were planted away.
    """

    p_values: dict[str, float]
    correlation: float
    sum_is_exact: bool | None

    def list_problems(self, confidence: float) -> list[str]:
        """Return in words what does not hold, at a confidence over all checks together."""
        level = (1 - confidence) / len(self.p_values)
        problems = [_WORDS[name] for name, p_value in self.p_values.items() if p_value <= level]
        return problems + (
            ["the sum is not the sum of the vectors"] if self.sum_is_exact is False else []
        )


class _Round:
    """The sessions of one round, in one process."""

    def __init__(self, subject: Subject, section: SecureAggregationSection) -> None:
        count = max(MIN_SITES, section.min_cohort)
        self.sites = tuple(f"site-{number:03d}" for number in range(count))
        roster = make_signed_roster(subject.seed, self.sites)
        block = Block("update", SIZE, section.max_update_norm)
        self.encoding = VectorEncoding((block,), cohort=count, ring_bits=section.ring_bits)
        self.context = RoundContext(
            federation=FEDERATION,
            run="audit",
            round=1,
            attempt=0,
            roster_digest=compute_roster_digest(roster),
            config_digest=_DIGEST,
            model_digest=_DIGEST,
            cohort=self.sites,
            threshold=compute_default_threshold(count),
            length=self.encoding.length,
            ring_bits=self.encoding.ring_bits,
            neighbours=plan_graph(count).neighbours,
        )
        self._coordinator = CoordinatorSession(self.context, roster)
        kind = SiteSession if subject.plant.masks else _UnmaskedSession
        policy = make_policy(subject.seed, self.sites, section)
        self._sessions = {
            site: kind(
                site,
                make_identity(subject.seed, site),
                policy=policy,
                store=MemoryStore(),
                generator=SecureGenerator.from_seed(subject.seed, "audit", "secagg", site),
            )
            for site in self.sites
        }

    def mask(self, vectors: dict[str, Words]) -> dict[str, Words]:
        """Run the round until the coordinator has all masked vectors; return them."""
        for session in self._sessions.values():
            advertised = session.advertise(
                self.context, config_digest=_DIGEST, model_digest=_DIGEST
            )
            self._coordinator.receive_advertisement(advertised)
        listed = self._coordinator.close_advertisements()
        for session in self._sessions.values():
            self._coordinator.receive_shares(session.share_keys(listed))
        seen = {}
        for site, delivery in self._coordinator.close_shares().items():
            masked = self._sessions[site].mask(vectors[site], delivery)
            seen[site] = np.frombuffer(masked.words, self.encoding.dtype).copy()
            self._coordinator.receive_vector(masked)
        return seen

    def finish(self) -> Words:
        """Run the rest of the round; return the sum."""
        survivors = self._coordinator.close_vectors()
        for session in self._sessions.values():
            self._coordinator.receive_signature(session.sign_survivors(survivors))
        signatures = self._coordinator.close_signatures()
        for session in self._sessions.values():
            self._coordinator.receive_unmasking(session.unmask(signatures))
        return self._coordinator.finish()


def measure_masking(subject: Subject) -> Masking:
    """Run a round of a subject's protocol and look at one site's masked vector."""
    section = subject.claim.secure_aggregation
    round_ = _Round(subject, section)
    plain = {site: _draw_update(round_, subject, site) for site in round_.sites}
    vectors = {site: words.copy() for site, words in plain.items()}
    seen = round_.mask(vectors)
    ring = np.uint64(2**section.ring_bits - 1)
    first = round_.sites[0]
    masked, update = (words.astype(np.uint64) & ring for words in (seen[first], plain[first]))
    correlation = _correlate(masked, update, bits=section.ring_bits)
    exact: bool | None = None
    if subject.plant.masks:
        total = np.zeros_like(plain[first])
        for words in plain.values():
            total += words
        exact = bool(np.array_equal(round_.finish().astype(np.uint64) & ring, total & ring))
    shift = np.uint64(section.ring_bits - 8)
    p_values = {
        "high_byte": _compare_bytes(masked >> shift),
        "low_byte": _compare_bytes(masked & np.uint64(255)),
        "correlation": _compute_correlation_p_value(correlation, SIZE),
    }
    return Masking(p_values, correlation, exact)


def audit_masking(context: AuditContext) -> list[Finding]:
    """Check that one site's masked vector is noise; nothing where the protocol is not run."""
    if context.config.secure_aggregation.mode != "protocol":
        return []
    subject = make_subject(context.config, seed=context.seed, plant=find_plant(context.plant))
    measured = measure_masking(subject)
    problems = measured.list_problems(context.confidence)
    sentence = (
        f"What the coordinator receives of one site tells of its update: {'; '.join(problems)}."
        if problems
        else "What the coordinator receives of one site alone could not be told from random"
        " numbers, and the sum over all sites was exact. Sums over many rounds are not hidden by"
        " masks."
    )
    return [
        Finding(
            method=METHOD,
            title="Masks of secure aggregation",
            threat_model="The coordinator has one site's masked vector and knows its update.",
            unit="site",
            sample_size=SIZE,
            confidence=context.confidence,
            seed=context.seed,
            figures={
                "correlation_with_update": measured.correlation,
                "sum_is_exact": {True: "yes", False: "no", None: None}[measured.sum_is_exact],
                **{f"p_value_{name}": value for name, value in measured.p_values.items()},
            },
            verdict="violated" if problems else "holds",
            sentence=sentence,
        )
    ]


def _draw_update(round_: _Round, subject: Subject, site: str) -> Words:
    """Return an encoded update of half the largest norm."""
    generator = SecureGenerator.from_seed(subject.seed, "audit", "update", site)
    values = generator.draw_normal(SIZE, stddev=1.0).numpy().astype(np.float64)
    bound = round_.encoding.blocks[0].bound
    values *= bound / 2 / np.linalg.norm(values)
    return round_.encoding.encode({"update": values}, generator=generator)


def _correlate(masked: NDArray[np.uint64], update: NDArray[np.uint64], *, bits: int) -> float:
    """Return the correlation of words read as signed numbers of the ring."""
    half, whole = 2.0 ** (bits - 1), 2.0**bits
    first, second = (
        np.where(words < half, words.astype(np.float64), words.astype(np.float64) - whole)
        for words in (masked, update)
    )
    return float(np.corrcoef(first, second)[0, 1])


def _compare_bytes(values: NDArray[np.uint64]) -> float:
    counts = np.bincount(values.astype(np.int64), minlength=256)
    return float(chisquare(counts).pvalue)


def _compute_correlation_p_value(correlation: float, size: int) -> float:
    most = min(abs(correlation), 1 - 1e-12)
    return min(1.0, 2 * float(t.sf(most * math.sqrt((size - 2) / (1 - most**2)), size - 2)))
