"""A site's vector of statistics in the ring: layout, rounding, noise in shares, the decoded sum.

Coordinator and site build the same layout from the plan, the config and the cohort, so that
nothing of it is sent.

Legend: m coordinates, n records of a site.
"""

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.config import Config
from fedtrain.data.columns import Category
from fedtrain.data.records import Features
from fedtrain.errors import ConfigError, DataError
from fedtrain.plan import get_threshold
from fedtrain.privacy.accounting import PrivacyCost, compute_cost
from fedtrain.privacy.calibration import calibrate_site_noise
from fedtrain.privacy.discrete_gaussian import draw_discrete_gaussian
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.privacy.noise_shares import compute_rounded_norm, compute_share_variance
from fedtrain.privacy.site_noise import (
    MIN_SHARE_VARIANCE,
    NOMINAL_SENSITIVITY,
    TAIL,
    NoiseShare,
)
from fedtrain.secagg.encoding import Block, VectorEncoding
from fedtrain.secagg.masks import Words
from fedtrain.statistics.plan import StatisticsPlan
from fedtrain.statistics.records import iterate_values

BLOCK: Final = "statistics"


class StatisticsVector:
    """The layout of one sum of statistics.

    Attributes:
        encoding: One block, whose scale is a power of two.
        share: The noise that each site adds; None where the sum is exact.

    Guarantees:
        * One record more or less at one site changes the site's integer vector, before noise, by
          an L2 norm of at most `share.sensitivity`, whatever the record holds.
        * With at least `share.shares` honest sites in the sum, its noise is that of
          `share.to_event(sample_rate=1, steps=1)`: record-level differential privacy against
          everybody, the coordinator and other sites included. Rounding is by a generator whose
          draws for other records do not depend on the record.
        * Without noise a site of more than `plan.max_records` refuses; with noise it does not (a
          refusal would tell), and a sum beyond the ring wraps around, which releases nothing more.

    References:
        The distributed discrete Gaussian and its cost: `fedtrain.privacy.noise_shares`. The bound
        on the rounded norm there is of one rounded vector; a site's is a sum of its records',
        each rounded by itself.
    """

    def __init__(self, plan: StatisticsPlan, config: Config, *, cohort: int) -> None:
        """Lay out the vector.

        Raises:
            ConfigError: It does not fit the ring, or the noise is too small for it.
        """
        section = config.secure_aggregation
        shares = count_shares(config, cohort)
        norm = plan.compute_record_norm()
        # Twice: rounding adds to the sensitivity, and by less than the norm itself.
        reach = 2 * TAIL * plan.noise_multiplier * norm / math.sqrt(shares)
        self.plan = plan
        self.encoding = VectorEncoding(
            (Block(BLOCK, plan.length, plan.max_records + reach),),
            cohort=cohort,
            ring_bits=section.ring_bits,
        )
        self.scale = self.encoding.scales[BLOCK]
        self.share: NoiseShare | None = None
        if plan.noise_multiplier:
            self.share = self._make_share(norm, shares)

    def encode(
        self,
        features: Features,
        labels: Category,
        *,
        rounding: SecureGenerator,
        noise: SecureGenerator,
    ) -> Words:
        """Encode one site's records.

        Args:
            features: Raw records.
            labels: Their classes.
            rounding: Source of the stochastic rounding of every record.
            noise: Source of the site's share of the noise.

        Returns:
            `(m,)` words.

        Raises:
            DataError: A column is of another kind, or without noise there are too many records.
        """
        if self.share is None and len(labels) > self.plan.max_records:
            raise DataError(
                f"there are more records than max_records = {self.plan.max_records}; raise it for"
                " all sites"
            )
        total = np.zeros(self.plan.length, dtype=np.int64)
        for values in iterate_values(features, labels, self.plan):
            total += _round(values * self.scale, rounding).sum(axis=0)
        if self.share is not None:
            total += draw_discrete_gaussian(noise, len(total), variance=self.share.share_variance)
        # Two's complement: the low bits are the residue.
        ring = np.int64(2**self.encoding.ring_bits - 1)
        return (total & ring).astype(self.encoding.dtype)

    def decode(self, total: Words, *, survivors: int) -> NDArray[np.float64]:
        """Return the sums over the survivors' records, `(m,)`."""
        return self.encoding.decode_sum(total, survivors)[BLOCK]

    def compute_noise_stddev(self, survivors: int) -> float:
        """Return the standard deviation of the noise on each sum; 0 where it is exact."""
        if self.share is None:
            return 0.0
        return math.sqrt(self.share.share_variance * survivors) / self.scale

    def compute_cost(self, config: Config, *, delta: float) -> PrivacyCost | None:
        """Return what the sum costs a record; None where it is not protected."""
        if self.share is None:
            return None
        return compute_cost(
            [self.share.to_event(sample_rate=1.0, steps=1)],
            delta=delta,
            neighbouring_relation=config.privacy.neighbouring_relation,
            unit="record",
        )

    def _make_share(self, norm: float, shares: int) -> NoiseShare:
        sensitivity = compute_rounded_norm(norm, scale=self.scale, dimension=self.plan.length)
        variance = compute_share_variance(
            self.plan.noise_multiplier, sensitivity=sensitivity, shares=shares
        )
        if variance < MIN_SHARE_VARIANCE or sensitivity > 2 * norm * self.scale:
            raise ConfigError(
                f"{self.plan.max_records} records a site leave a ring of"
                f" {self.encoding.ring_bits} bits too coarse for noise of this size; lower"
                " max_records or raise secure_aggregation.ring_bits"
            )
        return NoiseShare(
            sensitivity=sensitivity,
            share_variance=variance,
            shares=shares,
            dimension=self.plan.length,
            max_update_norm=norm,
        )


def count_shares(config: Config, cohort: int) -> int:
    """Return how many honest survivors a sum has at least.

    Raises:
        ConfigError: None is left.
    """
    section = config.secure_aggregation
    threshold = get_threshold(config, cohort)
    shares = threshold - math.floor(section.corrupt_share * cohort)
    if shares < 1:
        raise ConfigError(
            f"secure_aggregation.corrupt_share = {section.corrupt_share:g} leaves no honest site"
            f" among {threshold} survivors of {cohort}; lower it"
        )
    return shares


def calibrate_noise(
    config: Config, *, target_epsilon: float, target_delta: float, sums: int = 1
) -> float:
    """Return the smallest noise multiplier for which so many sums cost at most the target.

    Raises:
        ConfigError: An argument is out of its range.
    """
    return calibrate_site_noise(
        target_epsilon=target_epsilon,
        target_delta=target_delta,
        site_sample_rate=1.0,
        rounds=sums,
        shares=1,
        dimension=1,
        sensitivity=NOMINAL_SENSITIVITY,
        neighbouring_relation=config.privacy.neighbouring_relation,
    )


def add_in_clear(vectors: Iterable[Words], layout: StatisticsVector) -> Words:
    """Return the sum of encoded vectors as the protocol would give it, hidden from nobody."""
    total = np.zeros(layout.encoding.length, dtype=layout.encoding.dtype)
    for words in vectors:
        total += words
    total &= total.dtype.type(2**layout.encoding.ring_bits - 1)
    return total


def _round(values: NDArray[np.float64], generator: SecureGenerator) -> NDArray[np.int64]:
    """Round each value to a neighbour, to the upper one with the probability of its fraction."""
    lower = np.floor(values)
    fraction = values - lower
    up = np.zeros(values.shape, dtype=np.bool_)
    places = np.nonzero(fraction)
    up[places] = generator.draw_uniform(len(places[0])) < fraction[places]
    result: NDArray[np.int64] = lower.astype(np.int64) + up
    return result
