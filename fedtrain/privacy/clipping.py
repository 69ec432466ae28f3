"""Adaptive clipping: the bound follows a quantile of the sites' update norms, noised and accounted.

Each site adds to its vector one bit, "my update's norm was within the bound", and the sum of bits
is noised with the rest. Everything here is a function of that noisy sum and of public constants.

Legend: z noise multiplier of the whole release, D sensitivity of the update's part, b magnitude of
the bit's coordinate (+b for yes, -b for no, 0 for a site that sat out), in integer units.
"""

import math
from dataclasses import dataclass, replace

from fedtrain.errors import ConfigError


@dataclass(frozen=True)
class AdaptiveClip:
    """The public state of adaptive clipping.

    Attributes:
        max_update_norm: The bound of the round to come.
        target_quantile: Share of updates that the bound is to leave unclipped, 0 to 1.
        learning_rate: Step of the bound's logarithm; 0.2 is usual.
        cohort: Public number of sites expected to join a round: site_sample_rate x sites.
        min_update_norm: The bound is never below.
        largest_update_norm: Nor above.

    Raises:
        ConfigError: A number is out of its range.
    """

    max_update_norm: float
    target_quantile: float
    learning_rate: float
    cohort: float
    min_update_norm: float
    largest_update_norm: float

    def __post_init__(self) -> None:
        if not 0 < self.min_update_norm <= self.max_update_norm <= self.largest_update_norm:
            raise ConfigError(
                f"max_update_norm = {self.max_update_norm:g} is not between the bounds"
                f" {self.min_update_norm:g} and {self.largest_update_norm:g}, both above 0"
            )
        if not math.isfinite(self.largest_update_norm):
            raise ConfigError("largest_update_norm is not finite; the encoding needs its number")
        if not 0 <= self.target_quantile <= 1:
            raise ConfigError(
                f"target_quantile = {self.target_quantile:g} is not between 0 and 1; 0.5 is usual"
            )
        if not (0 < self.learning_rate < math.inf and 0 < self.cohort < math.inf):
            raise ConfigError(
                f"learning_rate = {self.learning_rate:g}, cohort = {self.cohort:g}: positive"
                " numbers are needed"
            )

    def update(self, noisy_sum: float) -> "AdaptiveClip":
        """Return the state after a round.

        Args:
            noisy_sum: Noised sum over the sites that joined of (bit - 1/2): the decoded
                coordinate / 2b.

        Returns:
            The state with max_update_norm x exp(-learning_rate x (share - target_quantile)),
            where share = noisy_sum / cohort + 1/2, brought within its bounds.

        Raises:
            ValueError: The sum is not finite; an integer sum always is.

        Guarantees:
            * The bound stays within its bounds whatever the sum is.
            * Nothing but the sum and public constants is used, so that it costs no privacy
              beyond the sum's.

        References:
            Andrew, Thakkar, McMahan, Ramaswamy 2021 (arXiv:1905.03871), the geometric update.
        """
        if not math.isfinite(noisy_sum):
            raise ValueError(f"noisy_sum = {noisy_sum} is not finite")
        share = noisy_sum / self.cohort + 0.5
        step = -self.learning_rate * (share - self.target_quantile)
        # Far beyond the bounds' logarithms the exponential would overflow.
        reach = math.log(self.largest_update_norm / self.min_update_norm)
        moved = self.max_update_norm * math.exp(min(max(step, -reach), reach))
        bound = min(max(moved, self.min_update_norm), self.largest_update_norm)
        return replace(self, max_update_norm=bound)


def split_noise_multiplier(noise_multiplier: float, *, bit_noise_stddev: float) -> float:
    """Return the update's noise multiplier that leaves room for the bits.

    The release is as private as one at `noise_multiplier` alone: divided by its noise, a site's
    update has norm at most 1 / z_update and its (bit - 1/2) at most 1 / (2 x bit_noise_stddev), and
    the squares of the two add up to 1 / noise_multiplier^2.

    Args:
        noise_multiplier: z, of the whole release; 0 gives 0.
        bit_noise_stddev: Standard deviation of the noise on the sum of (bit - 1/2).

    Returns:
        (z^-2 - (2 x bit_noise_stddev)^-2)^(-1/2), above z.

    Raises:
        ConfigError: bit_noise_stddev is not above z / 2: the bits alone would cost more than the
            whole.

    References:
        Andrew, Thakkar, McMahan, Ramaswamy 2021 (arXiv:1905.03871); derived above.
    """
    _check_split(noise_multiplier, bit_noise_stddev)
    if noise_multiplier == 0:
        return 0.0
    ratio = noise_multiplier / (2 * bit_noise_stddev)
    return noise_multiplier / math.sqrt((1 - ratio) * (1 + ratio))


def compute_bit_magnitude(
    update_sensitivity: float, *, noise_multiplier: float, bit_noise_stddev: float
) -> int:
    """Return b: how large a site writes its bit where all coordinates have the same noise.

    With noise z sqrt(D^2 + b^2) on every coordinate, the sum of (bit - 1/2) has noise
    z sqrt(D^2 + b^2) / 2b; b is the smallest integer for which that is at most `bit_noise_stddev`.
    The event's sensitivity is then `compute_joint_sensitivity(D, b)`.

    Args:
        update_sensitivity: D, rounding included, in integer units.
        noise_multiplier: z, of the whole release.
        bit_noise_stddev: Wanted standard deviation of the noise on the sum of (bit - 1/2).

    Returns:
        b, at least 1.

    Raises:
        ConfigError: As `split_noise_multiplier`; or the sensitivity is not a positive number.
    """
    _check_split(noise_multiplier, bit_noise_stddev)
    if not 0 < update_sensitivity < math.inf:
        raise ConfigError(f"update_sensitivity = {update_sensitivity:g} is not a positive number")
    ratio = noise_multiplier / (2 * bit_noise_stddev)
    magnitude = update_sensitivity * ratio / math.sqrt((1 - ratio) * (1 + ratio))
    return max(1, math.ceil(magnitude))


def compute_joint_sensitivity(update_sensitivity: float, bit_magnitude: int) -> float:
    """Return the L2 norm that a site's update and bit together do not exceed, rounded up."""
    return math.hypot(update_sensitivity, bit_magnitude) * (1 + 2.0**-50)


def _check_split(noise_multiplier: float, bit_noise_stddev: float) -> None:
    if not 0 <= noise_multiplier < math.inf:
        raise ConfigError(f"noise_multiplier = {noise_multiplier:g} is not a number of at least 0")
    if not noise_multiplier / 2 < bit_noise_stddev < math.inf:
        raise ConfigError(
            f"bit_noise_stddev = {bit_noise_stddev:g} is not above noise_multiplier / 2 ="
            f" {noise_multiplier / 2:g}: the bits alone would cost more than the whole; raise it,"
            " cohort / 20 is usual"
        )
