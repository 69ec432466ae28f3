"""A site's vector of one round of training: layout, encoding, noise, and the decoded sum.

Coordinator and site build the same layout from the config and the cohort, so that nothing of it
is sent. Without site-level privacy the vector holds weight x update and the weight, whose sums'
quotient is the average; with FedNova the update is per local step, and their number rides along.
Under site-level privacy it holds the clipped update and, where the clip adapts, one bit, both with
the site's share of the noise; the divisor is a public constant. The config may have fewer
coordinates of the update sent, in fewer bits.

Shapes: d parameters, s of them sent, m elements of the encoded vector.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.compression import draw_kept
from fedtrain.config import Config
from fedtrain.params import Vector, compute_norm
from fedtrain.plan import build_site_plan, get_threshold, sends_metrics
from fedtrain.privacy.discrete_gaussian import draw_discrete_gaussian
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.privacy.site_noise import NoiseShare
from fedtrain.secagg.encoding import Block, VectorEncoding
from fedtrain.secagg.faults import UpdateRangeError
from fedtrain.secagg.masks import Words
from fedtrain.training.optimisers import MAX_NORM

# A mean loss beyond this is a model that has diverged; the site refuses to report it.
MAX_LOSS: Final = 100.0
UPDATE: Final = "update"
WEIGHT: Final = "weight"
LOSS: Final = "loss"
GRADIENT: Final = "gradient norm"
STEPS: Final = "steps"
# More local steps than this FedNova does not count; the site refuses to report them.
MAX_STEPS: Final = 100_000
# Keeps the norm of a clipped update below the clip whatever the rounding of the products.
_CLIP_MARGIN: Final = 1 - 1e-9


@dataclass(frozen=True)
class TrainingSum:
    """What the coordinator learns of a round of training.

    Attributes:
        average: Weighted average of the survivors' updates; under site-level privacy their noised
            sum / the plan's divisor. `(d,)`.
        weight: Sum of their weights, or the divisor.
        train_loss: Weighted mean of their losses, not protected by differential privacy; None
            where it is not sent.
        steps: Weighted mean of their local steps; None but with FedNova.
        gradient_norm: Weighted mean of the logarithms (base 10) of their gradients' mean norms;
            None where the config does not ask for it.
        below: Noised sum over the survivors of 1/2 where an update was within the clip, else -1/2;
            None where the clip does not adapt.
    """

    average: Vector
    weight: float
    train_loss: float | None = None
    below: float | None = None
    gradient_norm: float | None = None
    steps: float | None = None


class TrainingVector:
    """The layout of the training vectors of one cohort.

    Attributes:
        encoding: Blocks and their scales.
        share: The noise that each site adds; None without site-level privacy.

    Guarantees:
        * Under site-level privacy the update's L2 norm is at most `clip` before it is rounded,
          whatever it was; one that is not finite counts as zero. The rounded vector's norm is at
          most `share.sensitivity`.
        * Then nothing in the vector is without noise, but for the loss where the config sends it.
    """

    def __init__(
        self,
        config: Config,
        *,
        size: int,
        cohort: int,
        clip: float | None = None,
        round: int = 1,
    ) -> None:
        """Lay out the vector.

        Args:
            config: The resolved config.
            size: d.
            cohort: Sites asked.
            clip: The round's clip of site-level privacy; by default the plan's first.
            round: From which follows what of an update is sent; lengths are those of any other.

        Raises:
            ConfigError: It does not fit the ring, or the noise is too small for it.
        """
        section = config.secure_aggregation
        self._plan = plan = build_site_plan(config)
        self._max_norm = section.max_update_norm
        self._is_private = config.privacy.unit != "none"
        self._per_step = config.federation.strategy == "FedNova"
        self._fewest_shares = 1
        self._size, self._compression = size, config.compression
        self._kept = draw_kept(config, size=size, round=round)
        if plan is not None:
            least = section.min_cohort if plan.samples else cohort
            self._fewest_shares = plan.count_shares(least, get_threshold(config, least))
        equal = config.federation.weighting == "equal"
        self._max_weight = 1 if equal else section.max_weight
        # Where sites are sampled a scale that followed the cohort would tell its size.
        widest = cohort if plan is None or not plan.samples else max(cohort, plan.sites)
        blocks = [self._make_update_block(size, clip), *self._make_sums(config)]
        self.encoding = VectorEncoding(tuple(blocks), cohort=widest, ring_bits=section.ring_bits)
        self.share: NoiseShare | None = None
        if plan is not None:
            self.share = plan.make_share(
                self._clip,
                scale=self.encoding.scales[UPDATE],
                dimension=size,
                shares=plan.count_shares(cohort, get_threshold(config, cohort)),
            )

    def encode(
        self,
        update: Vector,
        *,
        weight: int,
        train_loss: float,
        rounding: SecureGenerator,
        noise: SecureGenerator,
        steps: int = 1,
        gradient_norm: float | None = None,
    ) -> Words:
        """Encode one site's round of training.

        Args:
            update: Local model less the global one, `(d,)`.
            weight: Number of training records, or 1; counted as the public bound where above it.
            train_loss: Mean loss.
            rounding: Source of the stochastic rounding.
            noise: Source of the site's share of the noise; nothing is drawn where there is none.
            steps: Local steps, which FedNova divides the update by.
            gradient_norm: Mean norm of the steps' gradients, where the config sends it.

        Returns:
            `(m,)` words.

        Raises:
            UpdateRangeError: Without site-level privacy: the update's L2 norm is beyond
                `max_update_norm`. Without any privacy: the loss is beyond its bound, or the steps.
        """
        if self._per_step and steps:
            update = update / np.float32(steps)
        if self._plan is None:
            parts, factor = self._weigh(update, weight)
        else:
            parts, factor = self._clip_update(update), 1.0
        if self._is_private:
            # A site that dropped out for its loss would show in who survived: that is not covered
            # by a guarantee's silence on the loss itself.
            train_loss = float(np.clip(np.nan_to_num(train_loss), 0.0, MAX_LOSS))
        parts[LOSS] = np.array([train_loss * factor])
        parts[STEPS] = np.array([steps * factor])
        if gradient_norm is not None:
            parts[GRADIENT] = np.array([math.log10(gradient_norm) * factor])
        words = self.encoding.encode(parts, generator=rounding)
        if self.share is not None:
            _add_noise(words, self.share.dimension, self.share.share_variance, noise)
        return words

    def decode(self, total: Words, *, survivors: int, noise: SecureGenerator) -> TrainingSum:
        """Decode the sum of the survivors' vectors.

        Args:
            total: The sum, `(m,)`; where sites are sampled, noise is added to it in place.
            survivors: How many vectors it is of.
            noise: Source of the noise that hides the cohort's size.
        """
        if self._plan is not None and self.share is not None:
            variance = self._plan.compute_top_up(self.share, survivors)
            _add_noise(total, self.share.dimension, variance, noise)
        parts = self.encoding.decode_sum(total, survivors)
        if self._plan is not None and self.share is not None:
            return self._decode_noised(parts, self._plan.divisor, survivors)
        weight = float(parts[WEIGHT][0])
        factor = self._max_weight / weight
        loss = float(parts[LOSS][0]) * factor if LOSS in parts else None
        steps = float(parts[STEPS][0]) * factor if STEPS in parts else None
        norm = float(parts[GRADIENT][0]) * factor if GRADIENT in parts else None
        average = self._spread(_average(parts[UPDATE], factor))
        return TrainingSum(average, weight, loss, steps=steps, gradient_norm=norm)

    def _decode_noised(
        self, parts: dict[str, NDArray[np.float64]], divisor: float, survivors: int
    ) -> TrainingSum:
        loss = float(parts[LOSS][0]) / survivors if LOSS in parts else None
        update, below = parts[UPDATE], None
        if self.share is not None and self.share.bit_magnitude:
            scale = self.encoding.scales[UPDATE]
            below = float(update[-1]) * scale / (2 * self.share.bit_magnitude)
            update = update[:-1]
        return TrainingSum(_average(update, 1 / divisor), divisor, loss, below)

    def _make_update_block(self, size: int, clip: float | None) -> Block:
        plan, few = self._plan, self._compression
        if plan is None:
            sent = size if self._kept is None else len(self._kept)
            if few is None or few.largest_coordinate is None:
                return Block(UPDATE, sent, self._max_norm)
            return Block(UPDATE, sent, few.largest_coordinate, bits=few.update_bits)
        self._clip = plan.first_update_norm if clip is None else clip
        # The fewest shares of any cohort: a bound that followed the cohort's would set the scale.
        reach = plan.compute_reach(self._clip, shares=self._fewest_shares)
        return Block(UPDATE, size + (plan.bit_noise_multiplier is not None), reach)

    def _make_sums(self, config: Config) -> list[Block]:
        weight = [Block(WEIGHT, 1, self._max_weight, "count")] if self._plan is None else []
        steps = [Block(STEPS, 1, MAX_STEPS)] if self._per_step else []
        norms = [Block(GRADIENT, 1, math.log10(MAX_NORM))] if config.training.gradient_norms else []
        losses = [Block(LOSS, 1, MAX_LOSS)] if sends_metrics(config) else []
        return weight + losses + steps + norms

    def _weigh(self, update: Vector, weight: int) -> tuple[dict[str, NDArray[Any]], float]:
        private_norm = compute_norm(update)
        if not private_norm <= self._max_norm:
            raise UpdateRangeError(
                f"the update's norm is {private_norm:.4g}, above"
                f" secure_aggregation.max_update_norm = {self._max_norm:g}; lower"
                " training.learning_rate or raise the bound for the whole run",
                len(update),
            )
        counted = min(weight, self._max_weight)
        factor = counted / self._max_weight
        weighed = update if factor == 1 else update * np.float32(factor)
        return {UPDATE: self._compress(weighed), WEIGHT: np.array([counted])}, factor

    def _compress(self, update: Vector) -> NDArray[Any]:
        """Return what of an update is sent, `(s,)`, within the bound of few bits."""
        sent = update if self._kept is None else update[self._kept]
        if self._compression is None or self._compression.largest_coordinate is None:
            return sent
        bound = self._compression.largest_coordinate
        return np.clip(sent.astype(np.float64), -bound, bound)  # float32 may round it up

    def _spread(self, average: Vector) -> Vector:
        """Return an average of what was sent as one of whole updates, `(d,)`, zero elsewhere."""
        if self._kept is None:
            return average
        whole = np.zeros(self._size, np.float32)
        whole[self._kept] = average
        return whole

    def _clip_update(self, update: Vector) -> dict[str, NDArray[Any]]:
        values = update.astype(np.float64)
        private_norm = float(np.linalg.norm(values))
        if not np.isfinite(private_norm):
            # What made it so may be one site's data: it counts as an update of zero.
            values, private_norm = np.zeros_like(values), 0.0
        if private_norm > self._clip * _CLIP_MARGIN:
            values *= self._clip * _CLIP_MARGIN / private_norm
        if self.share is not None and self.share.bit_magnitude:
            bit = self.share.bit_magnitude / self.encoding.scales[UPDATE]  # exact: a power of two
            values = np.append(values, bit if private_norm <= self._clip else -bit)
        return {UPDATE: values}


def _add_noise(words: Words, size: int, variance: int, noise: SecureGenerator) -> None:
    """Add a discrete Gaussian to the first words, in the ring and in place."""
    if variance:
        words[:size] += draw_discrete_gaussian(noise, size, variance=variance).astype(words.dtype)


def _average(total: NDArray[np.float64], factor: float) -> Vector:
    average: Vector = (total * factor).astype(np.float32)
    return average
