"""What a site demands of a round before it takes part; nothing here comes from the coordinator."""

from dataclasses import dataclass
from typing import Final

from fedtrain.errors import ConfigError
from fedtrain.secagg.binding import check_sites
from fedtrain.secagg.encoding import MAX_RING_BITS, MIN_RING_BITS
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.graph import plan_graph
from fedtrain.secagg.messages import RoundContext, SignedRoster
from fedtrain.secagg.roster import compute_roster_digest, get_keys, verify_roster

MIN_COHORT: Final = 3


def compute_default_threshold(cohort: int) -> int:
    """Return the smallest t > 2n/3 (Bonawitz et al. 2017, for an active server)."""
    return 2 * cohort // 3 + 1


def compute_least_threshold(cohort: int) -> int:
    """Return the smallest t > n/2: below, two disjoint sets of sites could each unmask."""
    return cohort // 2 + 1


@dataclass(frozen=True)
class SitePolicy:
    """A site's own minima and its pinned roster.

    Attributes:
        root_public_key: The federation's root, Ed25519.
        roster: Pinned in the site's kit.
        min_cohort: Fewest sites in a sum; never below 3, for two cannot hide from each other.
        min_threshold_share: A threshold must be above this share of the cohort; at least 1/2.
        dropout_share: For the graph above 200 sites; the same for the whole federation.
        corrupt_share: Likewise.

    Raises:
        ConfigError: A minimum that does not protect.
        RefusalError: The root did not sign the roster.
    """

    root_public_key: bytes
    roster: SignedRoster
    min_cohort: int = MIN_COHORT
    min_threshold_share: float = 2 / 3
    dropout_share: float = 0.1
    corrupt_share: float = 0.1

    def __post_init__(self) -> None:
        if self.min_cohort < MIN_COHORT:
            raise ConfigError(
                f"min_cohort = {self.min_cohort} is below {MIN_COHORT}: two sites cannot hide from"
                " each other; raise it"
            )
        if not 0.5 <= self.min_threshold_share < 1:
            raise ConfigError(
                f"min_threshold_share = {self.min_threshold_share:g} is not from 0.5 to below 1;"
                " at half, two survivor sets could be signed"
            )
        verify_roster(self.roster, self.root_public_key)

    def get_keys(self) -> dict[str, bytes]:
        """Return the pinned public key of each site."""
        return get_keys(self.roster.roster)

    def check_context(
        self, context: RoundContext, site: str, *, config_digest: bytes, model_digest: bytes
    ) -> None:
        """Raise RefusalError unless this site may take part in a round.

        Args:
            context: As announced by the coordinator.
            site: This site.
            config_digest: SHA-256 of the config that this site runs.
            model_digest: SHA-256 of the model that this site received.
        """
        self.check_roster(context)
        pairs = {
            "config_digest": (context.config_digest, config_digest),
            "model_digest": (context.model_digest, model_digest),
        }
        for name, (announced, own) in pairs.items():
            _check_own(name, announced, own)
        if not MIN_RING_BITS <= context.ring_bits <= MAX_RING_BITS or context.length < 1:
            raise RefusalError(
                "context", f"a ring of {context.ring_bits} bits, {context.length} elements"
            )
        check_sites(context.cohort, self.get_keys())
        check_sites([site], context.cohort)
        self.check_remaining(len(context.cohort), context)
        self._check_threshold(context)

    def check_roster(self, context: RoundContext) -> None:
        """Raise RefusalError unless a round is of the pinned roster."""
        _check_own("federation", context.federation, self.roster.roster.federation)
        _check_own("roster_digest", context.roster_digest, compute_roster_digest(self.roster))

    def check_remaining(self, remaining: int, context: RoundContext) -> None:
        """Raise RefusalError if too few sites are left, at whichever stage."""
        least = max(self.min_cohort, context.threshold)
        if remaining < self.min_cohort:
            raise RefusalError(
                "cohort", f"{remaining} sites are below this site's minimum {self.min_cohort}"
            )
        if remaining < least:
            raise RefusalError("cohort", f"{remaining} sites are below the threshold {least}")

    def _check_threshold(self, context: RoundContext) -> None:
        n, t = len(context.cohort), context.threshold
        if not n * self.min_threshold_share < t <= n or t < compute_least_threshold(n):
            raise RefusalError(
                "threshold",
                f"threshold {t} of {n} is not above this site's minimum"
                f" {self.min_threshold_share:g} x {n}",
            )
        plan = plan_graph(n, dropout_share=self.dropout_share, corrupt_share=self.corrupt_share)
        if plan.neighbours and 2 * t - n <= self.corrupt_share * n:
            raise RefusalError(
                "threshold",
                f"threshold {t} of {n} lets {2 * t - n} corrupt sites sign two survivor sets; this"
                f" site's policy allows for {self.corrupt_share:g} x {n}",
            )
        if context.neighbours != plan.neighbours:
            raise RefusalError(
                "graph",
                f"{context.neighbours} neighbours among {n} sites; this site's policy computes"
                f" {plan.neighbours}",
            )


def _check_own(name: str, announced: bytes | str, own: bytes | str) -> None:
    if announced != own:
        raise RefusalError("context", f"{name} of the round is not this site's own")
