"""Site-level privacy: what each site clips, and which share of the noise it adds to its vector.

A round's sum over any `threshold` survivors, less the shares of those who side with the
coordinator, still has the claimed noise: each site adds a discrete Gaussian of variance
(noise_multiplier x sensitivity)^2 / shares, with shares = threshold - corrupt sites. The sum is
taken by secure aggregation, so that nobody sees it, or a single vector, with less.

With all survivors the sum has more noise than that, by a factor that the cohort's size gives away.
Where sites are sampled, and that is to count for those who see the models only, the size must not
show: the scale is then one for all cohorts, and the coordinator tops the noise up to one variance,
`spread` times the claimed one.

Everything here is a public constant of the run or of the round's cohort.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from fedtrain.errors import ConfigError
from fedtrain.privacy.clipping import (
    AdaptiveClip,
    compute_bit_magnitude,
    compute_joint_sensitivity,
)
from fedtrain.privacy.events import DistributedDiscreteGaussian
from fedtrain.privacy.noise_shares import compute_rounded_norm, compute_share_variance
from fedtrain.secagg.policy import compute_default_threshold

# Below this variance (in units of the ring) a share's discreteness would begin to count.
MIN_SHARE_VARIANCE: Final = 1024
# A share is beyond so many standard deviations once in 10^32 draws: room for it in the ring.
TAIL: Final = 12.0
# An adaptive clip goes down to the largest divided by this.
CLIP_RANGE: Final = 1e4
# Planned costs are computed at this sensitivity: any that is large gives the same.
NOMINAL_SENSITIVITY: Final = 2.0**20


class NoiseShare(BaseModel):
    """The noise that one site added in one round, in units of the ring; frozen.

    Attributes:
        sensitivity: L2 norm that a site's encoded vector has at most, rounding and bit included.
        share_variance: Variance of the site's own discrete Gaussian on each coordinate.
        shares: Survivors whose noise the claim counts on.
        dimension: Coordinates that carry noise.
        max_update_norm: L2 norm that the update itself was clipped to.
        bit_magnitude: How large the clipping bit is written; 0 where the clip is fixed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    sensitivity: float = Field(gt=0)
    share_variance: int = Field(ge=0)
    shares: int = Field(ge=1)
    dimension: int = Field(ge=1)
    max_update_norm: float = Field(gt=0)
    bit_magnitude: int = Field(0, ge=0)

    def to_event(self, *, sample_rate: float, steps: int) -> DistributedDiscreteGaussian:
        """Return `steps` sums with this noise, as an event for accounting."""
        return DistributedDiscreteGaussian(
            sensitivity=self.sensitivity,
            share_variance=self.share_variance,
            shares=self.shares,
            dimension=self.dimension,
            sample_rate=sample_rate,
            steps=steps,
        )


@dataclass(frozen=True)
class SitePlan:
    """What protects a site in every round of a run.

    Attributes:
        noise_multiplier: Noise standard deviation of a sum / sensitivity, at least.
        max_update_norm: L2 clip of an update; the largest, where it adapts.
        first_update_norm: The clip of round 1.
        site_sample_rate: Poisson probability of a site in a round; 1 where none is claimed.
        divisor: What a sum is divided by: the expected cohort, never the survivors.
        corrupt_share: Share of a cohort that may side with the coordinator.
        sites: Sites of the federation.
        min_cohort: Fewest sites of a sum.
        bit_noise_multiplier: Noise standard deviation of the number of updates below the clip, at
            most; None where the clip is fixed.
        target_quantile: Share of updates that adaptive clipping leaves whole.
        clip_learning_rate: Its geometric rate.
    """

    noise_multiplier: float
    max_update_norm: float
    first_update_norm: float
    site_sample_rate: float
    divisor: float
    corrupt_share: float
    sites: int
    min_cohort: int
    bit_noise_multiplier: float | None = None
    target_quantile: float = 0.5
    clip_learning_rate: float = 0.2

    @property
    def samples(self) -> bool:
        """Whether sites are sampled, so that no cohort's size may show in a sum."""
        return self.site_sample_rate < 1

    def count_shares(self, cohort: int, threshold: int) -> int:
        """Return how many honest survivors a sum has at least.

        Raises:
            ConfigError: None is left.
        """
        shares = threshold - math.floor(self.corrupt_share * cohort)
        if shares < 1:
            raise ConfigError(
                f"secure_aggregation.corrupt_share = {self.corrupt_share:g} leaves no honest site"
                f" among {threshold} survivors of {cohort}; lower it"
            )
        return shares

    def compute_spread(self) -> float:
        """Return the variance that a sampled sum is topped up to / the claimed variance.

        The largest that all survivors of any cohort bring by themselves, at the default threshold.
        """
        return compute_spread(self.sites, self.min_cohort, self.corrupt_share)

    def compute_reach(self, clip: float, *, shares: int) -> float:
        """Return a bound on a coordinate of one site's clipped update with its share of noise."""
        # The clipping bit takes less than a third of the clip: bits are at least 2 multipliers.
        return clip * (1 + TAIL * 1.04 * self.noise_multiplier / math.sqrt(shares))

    def make_share(self, clip: float, *, scale: float, dimension: int, shares: int) -> NoiseShare:
        """Return the noise that a site adds to an update clipped to `clip`.

        Args:
            clip: L2 norm that the update has at most.
            scale: Units of the ring for 1.
            dimension: Coordinates of the update, without the clipping bit.
            shares: Fewest honest survivors, from `count_shares`.

        Raises:
            ConfigError: The ring is too coarse for noise this small.
        """
        sensitivity = compute_rounded_norm(clip, scale=scale, dimension=dimension)
        magnitude = 0
        if self.bit_noise_multiplier is not None:
            magnitude = compute_bit_magnitude(
                sensitivity,
                noise_multiplier=self.noise_multiplier,
                bit_noise_stddev=self.bit_noise_multiplier,
            )
            sensitivity = compute_joint_sensitivity(sensitivity, magnitude)
        variance = compute_share_variance(
            self.noise_multiplier, sensitivity=sensitivity, shares=shares
        )
        if self.noise_multiplier and variance < MIN_SHARE_VARIANCE:
            raise ConfigError(
                f"a site's share of the noise has variance {variance} in units of the ring, below"
                f" {MIN_SHARE_VARIANCE}; raise secure_aggregation.ring_bits or"
                " privacy.site.noise_multiplier"
            )
        return NoiseShare(
            sensitivity=sensitivity,
            share_variance=variance,
            shares=shares,
            dimension=dimension + (magnitude > 0),
            max_update_norm=clip,
            bit_magnitude=magnitude,
        )

    def make_adaptive_clip(self) -> AdaptiveClip | None:
        """Return the clip of round 1 as a state that adapts; None where the clip is fixed."""
        if self.bit_noise_multiplier is None:
            return None
        return AdaptiveClip(
            max_update_norm=self.first_update_norm,
            target_quantile=self.target_quantile,
            learning_rate=self.clip_learning_rate,
            cohort=self.divisor,
            min_update_norm=self.max_update_norm / CLIP_RANGE,
            largest_update_norm=self.max_update_norm,
        )

    def compute_top_up(self, share: NoiseShare, survivors: int) -> int:
        """Return the variance that the coordinator adds so that no cohort's size shows.

        Raises:
            ValueError: The survivors' noise is above what sums are topped up to.
        """
        if not self.samples:
            return 0
        claimed = Fraction(self.noise_multiplier) * Fraction(share.sensitivity)
        # One unit of variance a site: each share was rounded up to a whole number.
        level = math.ceil(claimed * claimed * Fraction(self.compute_spread())) + self.sites
        missing = level - survivors * share.share_variance
        if missing < 0:
            raise ValueError(f"{survivors} survivors bring more noise than a sum may show")
        return missing

    def to_event(self, rounds: int, *, outside: bool = True) -> DistributedDiscreteGaussian:
        """Return what `rounds` rounds release of a site, at the plan's noise.

        Args:
            rounds: Sums that the site may be in.
            outside: For whoever sees the models and not the cohorts: sampling counts, and so does
                all the noise that it is topped up with. Without sampling there is no difference.
        """
        sampled = outside and self.samples
        noise_multiplier = self.noise_multiplier
        if sampled:
            noise_multiplier *= math.sqrt(self.compute_spread()) * (1 - 1e-12)
        variance = compute_share_variance(
            noise_multiplier, sensitivity=NOMINAL_SENSITIVITY, shares=1
        )
        return DistributedDiscreteGaussian(
            sensitivity=NOMINAL_SENSITIVITY,
            share_variance=variance,
            shares=1,
            dimension=1,
            sample_rate=self.site_sample_rate if sampled else 1.0,
            steps=rounds,
        )


@lru_cache(maxsize=64)
def compute_spread(sites: int, min_cohort: int, corrupt_share: float) -> float:
    """Return the largest cohort / (threshold - corrupt sites) of all cohorts that may be drawn."""
    return max(
        cohort / max(1, compute_default_threshold(cohort) - math.floor(corrupt_share * cohort))
        for cohort in range(min_cohort, sites + 1)
    )
