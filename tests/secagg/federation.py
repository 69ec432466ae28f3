"""A federation in one process, whose coordinator a test may replace at any stage."""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import (
    CoordinatorSession,
    Identity,
    MemoryStore,
    RoundVoidError,
    SitePolicy,
    SiteSession,
    compute_default_threshold,
    make_roster,
    sign_roster,
)
from fedtrain.secagg.encoding import get_word_type
from fedtrain.secagg.graph import plan_graph
from fedtrain.secagg.messages import RoundContext
from fedtrain.secagg.replay import DurableSession
from fedtrain.secagg.roster import compute_roster_digest

CONFIG = hashlib.sha256(b"config").digest()
MODEL = hashlib.sha256(b"model").digest()
ROOT = Identity.from_seed(0, "root")


def name_sites(n):
    return tuple(f"site-{number:03d}" for number in range(n))


class Federation:
    """Identities, roster, policies and stores of n sites; contexts and sessions on demand.

    Attributes:
        processes_live_on: Whether durable sessions hold what they can from message to message.
    """

    processes_live_on = False

    def __init__(self, n=4, *, seed=0, root=ROOT, min_threshold_share=2 / 3):
        self.sites = name_sites(n)
        self.seed = seed
        self.identities = {site: Identity.from_seed(seed, site) for site in self.sites}
        keys = {site: one.public_key for site, one in self.identities.items()}
        self.roster = sign_roster(make_roster("test", 1, keys=keys), root)
        self.policy = SitePolicy(
            root.public_key, self.roster, min_threshold_share=min_threshold_share
        )
        self.stores = {site: MemoryStore() for site in self.sites}
        self.live = {}

    def make_context(self, **changes):
        cohort = changes.pop("cohort", self.sites)
        context = RoundContext(
            federation="test",
            run="run-1",
            round=1,
            attempt=0,
            roster_digest=compute_roster_digest(self.roster),
            config_digest=CONFIG,
            model_digest=MODEL,
            cohort=cohort,
            threshold=compute_default_threshold(len(cohort)),
            length=64,
            ring_bits=32,
            neighbours=plan_graph(len(cohort)).neighbours,
        )
        return replace(context, **changes)

    def make_session(self, site, *, label=0, policy=None):
        return SiteSession(
            site,
            self.identities[site],
            policy=policy or self.policy,
            store=self.stores[site],
            generator=SecureGenerator.from_seed(self.seed, site, label),
        )

    def make_durable(self, site, *, run="run-1", kind=DurableSession):
        return kind(
            site,
            self.identities[site],
            policy=self.policy,
            store=self.stores[site],
            run=run,
            generator=SecureGenerator.from_system(),
            live=self.live.setdefault(site, {}) if self.processes_live_on else None,
        )

    def make_sessions(self, context, *, label=0):
        return {site: self.make_session(site, label=label) for site in context.cohort}

    def draw_vectors(self, context):
        word = get_word_type(context.ring_bits)
        generator = SecureGenerator.from_seed(self.seed, "vectors", context.round)
        limit = 2**context.ring_bits // max(2, len(context.cohort))
        vectors = {}
        for site in context.cohort:
            words = generator.draw_bytes(4 * context.length).view("<u4") % limit
            vectors[site] = words.astype(word)
        return vectors


@dataclass
class Round:
    """One attempt, stage by stage; `drops` names who falls silent before which stage."""

    federation: Federation
    context: RoundContext
    drops: dict = field(default_factory=dict)
    label: object = 0

    def __post_init__(self):
        self.vectors = self.federation.draw_vectors(self.context)
        self.plain = {site: vector.copy() for site, vector in self.vectors.items()}
        self.sessions = self.federation.make_sessions(self.context, label=self.label)
        self.coordinator = CoordinatorSession(self.context, self.federation.roster)

    def alive(self, stage, sites):
        order = ("advertise", "share", "mask", "sign", "unmask")
        gone = {s for one in order[: order.index(stage) + 1] for s in self.drops.get(one, ())}
        return [site for site in sites if site not in gone]

    def advertise(self):
        for site in self.alive("advertise", self.context.cohort):
            self.coordinator.receive_advertisement(self.announce(site))
        self.listed = self.coordinator.close_advertisements()

    def announce(self, site, context=None, model=MODEL, config=CONFIG):
        return self.sessions[site].advertise(
            context or self.context, config_digest=config, model_digest=model
        )

    def share(self):
        for site in self.alive("share", [one.site for one in self.listed.advertisements]):
            self.coordinator.receive_shares(self.sessions[site].share_keys(self.listed))
        self.deliveries = self.coordinator.close_shares()

    def mask(self):
        for site in self.alive("mask", self.deliveries):
            masked = self.sessions[site].mask(self.vectors[site], self.deliveries[site])
            self.coordinator.receive_vector(masked)
        self.survivors = self.coordinator.close_vectors()

    def sign(self):
        for site in self.alive("sign", self.survivors.survivors):
            signature = self.sessions[site].sign_survivors(self.survivors)
            self.coordinator.receive_signature(signature)
        self.signatures = self.coordinator.close_signatures()

    def unmask(self):
        for site in self.alive("unmask", [one.site for one in self.signatures.signatures]):
            self.coordinator.receive_unmasking(self.sessions[site].unmask(self.signatures))

    def run_until(self, stage):
        """Run all stages before one."""
        for name in ("advertise", "share", "mask", "sign", "unmask", "finish"):
            if name == stage:
                return self
            getattr(self, name)()
        raise AssertionError(stage)

    def run(self):
        """Run the whole round; the sum, or None if it is void."""
        try:
            self.run_until("finish")
            return self.coordinator.finish()
        except RoundVoidError as error:
            self.void = error
            return None

    def compute_plain_sum(self):
        """The sum of the survivors' vectors as they were before masking."""
        total = np.zeros_like(next(iter(self.plain.values())))
        for site in self.survivors.survivors:
            total += self.plain[site]
        return total & total.dtype.type(2**self.context.ring_bits - 1)
