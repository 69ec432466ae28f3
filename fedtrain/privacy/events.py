"""What happened to records or sites, as records; what it costs is `fedtrain.privacy.accounting`.

An event is a fact about mechanisms that ran: it has no epsilon, no delta and no neighbouring
relation. One event covers equal steps; different steps are different events.
"""

import math
from dataclasses import dataclass
from typing import Final

from fedtrain.errors import ConfigError

MAX_STEPS: Final = 2**53


@dataclass(frozen=True)
class PoissonSampledGaussian:
    """`steps` releases of a clipped sum over a Poisson sample of records, plus Gaussian noise.

    Each record joins each step independently with probability `sample_rate`; the noise has
    standard deviation `noise_multiplier` x the L2 clip of one record. Whether the run really
    sampled so is for whoever writes the event: shuffled batches are not this event.

    Attributes:
        noise_multiplier: Noise standard deviation / L2 sensitivity; 0 protects nothing.
        sample_rate: Probability of a record in a step, 0 to 1.
        steps: Number of releases.

    Raises:
        ConfigError: A number is not finite or out of its range.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (self.noise_multiplier >= 0 and math.isfinite(self.noise_multiplier)):
            raise ConfigError(
                f"noise_multiplier = {self.noise_multiplier:g} is not a finite number of at least"
                " 0; give the noise's standard deviation / max_grad_norm"
            )
        if not 0 <= self.sample_rate <= 1:
            raise ConfigError(
                f"sample_rate = {self.sample_rate:g} is not between 0 and 1; give the probability"
                " of a record in a step"
            )
        if not 0 <= self.steps <= MAX_STEPS:
            raise ConfigError(
                f"steps = {self.steps:.3g} is not between 0 and 2^53; give the number of steps"
            )


@dataclass(frozen=True)
class DistributedDiscreteGaussian:
    """`steps` releases of a sum of sites' integer vectors, noise included that sites add in shares.

    The sum of the survivors' vectors is released with the sum of at least `shares` independent
    draws from N_Z(0, share_variance) on every coordinate. More shares than that, or those of sites
    that are not trusted, only help and are not counted. The roster is public: a site left out
    counts as a vector of zeros.

    With `sample_rate` below 1, each site's vector joins each step independently with that
    probability, and neither who joined nor how many is seen by whom the guarantee is for. So the
    noise must not tell either: a site that sits out still sends its noise, on zeros.

    Where only those who join add noise, or their number (not who they are) is seen: given the
    number, the cohort is a uniform subset, and each site's place may be another's. Then the event
    is one with `sample_rate` = joined / roster and twice the sensitivity (joint convexity, Balle,
    Barthe, Gaboardi 2018, arXiv:1807.01647). Where the cohort itself is seen, the rate is 1.

    Attributes:
        sensitivity: L2 norm that no site's integer vector exceeds, rounding included.
        share_variance: Parameter of one share; 0 protects nothing.
        shares: Fewest honest survivors that a released sum has.
        dimension: Coordinates of the vector.
        sample_rate: Probability of a site in a step; 1 claims nothing from sampling.
        steps: Number of releases.

    Raises:
        ConfigError: A number is not finite or out of its range.
    """

    sensitivity: float
    share_variance: int
    shares: int
    dimension: int
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.sensitivity < math.inf:
            raise ConfigError(
                f"sensitivity = {self.sensitivity:g} is not a finite number above 0; give the"
                " largest L2 norm of a site's integer vector"
            )
        if self.share_variance < 0 or self.shares < 1 or self.dimension < 1:
            raise ConfigError(
                f"share_variance = {self.share_variance}, shares = {self.shares}, dimension ="
                f" {self.dimension}: at least 0, 1 and 1 are needed"
            )
        if not 0 <= self.sample_rate <= 1:
            raise ConfigError(
                f"sample_rate = {self.sample_rate:g} is not between 0 and 1; give the probability"
                " of a site in a step"
            )
        if not 0 <= self.steps <= MAX_STEPS:
            raise ConfigError(
                f"steps = {self.steps:.3g} is not between 0 and 2^53; give the number of steps"
            )


@dataclass(frozen=True)
class Unprotected:
    """An update released with no mechanism: its epsilon is infinite at every delta."""


Mechanism = PoissonSampledGaussian | DistributedDiscreteGaussian
Event = Mechanism | Unprotected
