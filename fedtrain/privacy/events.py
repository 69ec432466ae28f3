"""What happened to a site's records, as records; what it costs is `fedtrain.privacy.accounting`.

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
class Unprotected:
    """An update released with no mechanism: its epsilon is infinite at every delta."""


Event = PoissonSampledGaussian | Unprotected
