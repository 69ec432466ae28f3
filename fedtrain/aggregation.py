"""What rides in a secure sum: an update with its weight, or the metric sums of an evaluation.

Both sides build the same encoding from the config, so that nothing of it is sent. The weights and
the metrics of a site are coordinates of the same vector as its update: nobody sees them alone.

Shapes: d parameters, C classes, m elements of the encoded vector.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.config import Config, SecureAggregationSection, to_canonical
from fedtrain.params import Vector
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg.encoding import Block, VectorEncoding, make_training_encoding
from fedtrain.secagg.faults import UpdateRangeError
from fedtrain.secagg.masks import Words
from fedtrain.training.metrics import MetricSums, compute_flat_length

# A mean loss beyond this is a model that has diverged; the site refuses to report it.
MAX_LOSS: Final = 100.0
_SPLITS: Final = (("validation", False), ("test", True))  # name, whether it has histograms


@dataclass(frozen=True)
class TrainingSum:
    """What the coordinator learns of a round of training.

    Attributes:
        average: Weighted average of the survivors' updates, `(d,)`.
        weight: Sum of their weights.
        train_loss: Weighted mean of their losses; not protected by differential privacy.
    """

    average: Vector
    weight: float
    train_loss: float


def name_run(config_digest: str, *, preparation_text: str, proximal_mu: float, purpose: str) -> str:
    """Return what a secure sum's context calls its run.

    The name is in every mask key and signature of the run, and each site computes it from what it
    received itself. A coordinator that prepares one site's records in another way than its
    peers', so that theirs cancel out, gets masks that do not (Pasquini et al. 2022 do it with the
    model).

    Args:
        config_digest: Of the config, hexadecimal.
        preparation_text: The fitted preparation, as it is sent.
        proximal_mu: FedProx's coefficient; 0 without.
        purpose: `train` or `evaluate`.
    """
    bound = to_canonical([preparation_text, float(proximal_mu)])
    return f"{config_digest[:32]}-{hashlib.sha256(bound.encode()).hexdigest()[:32]}/{purpose}"


def get_max_weight(config: Config) -> int:
    """Return the public bound of a site's weight."""
    equal = config.federation.weighting == "equal"
    return 1 if equal else config.secure_aggregation.max_weight


def build_training_encoding(config: Config, *, size: int, cohort: int) -> VectorEncoding:
    """Return the encoding of an update of `size` coordinates, its weight and its loss.

    Raises:
        ConfigError: It does not fit the ring.
    """
    section = config.secure_aggregation
    return make_training_encoding(
        size,
        section.max_update_norm,
        cohort=cohort,
        max_weight=get_max_weight(config),
        metrics=(Block("loss", 1, MAX_LOSS),),
        ring_bits=section.ring_bits,
    )


def encode_training(
    encoding: VectorEncoding,
    update: Vector,
    *,
    weight: int,
    train_loss: float,
    section: SecureAggregationSection,
    max_weight: int,
    generator: SecureGenerator,
) -> Words:
    """Encode one site's round of training.

    Args:
        encoding: From `build_training_encoding`.
        update: Local model less the global one, `(d,)`.
        weight: Number of training records, or 1; counted as `max_weight` where it is above.
        train_loss: Mean loss.
        section: The config's, for its `max_update_norm`.
        max_weight: Public bound.
        generator: Source of the stochastic rounding.

    Returns:
        `(m,)` words.

    Raises:
        UpdateRangeError: The update's L2 norm or the loss is beyond its bound.
    """
    private_norm = float(np.linalg.norm(update.astype(np.float64, copy=False)))
    if not private_norm <= section.max_update_norm:
        raise UpdateRangeError(
            f"the update's norm is {private_norm:.4g}, above secure_aggregation.max_update_norm ="
            f" {section.max_update_norm:g}; lower training.learning_rate or raise the bound for the"
            " whole run",
            len(update),
        )
    counted = min(weight, max_weight)
    share = counted / max_weight
    parts = {
        "update": update if share == 1 else update * np.float32(share),
        "weight": np.array([counted]),
        "loss": np.array([train_loss * share]),
    }
    return encoding.encode(parts, generator=generator)


def decode_training(
    encoding: VectorEncoding, total: Words, *, survivors: int, max_weight: int
) -> TrainingSum:
    """Decode the sum of the survivors' vectors; see `encode_training`."""
    parts = encoding.decode_sum(total, survivors)
    weight = float(parts["weight"][0])
    factor = max_weight / weight
    average = (parts["update"] * factor).astype(np.float32)
    return TrainingSum(average, weight, float(parts["loss"][0] * factor))


def build_evaluation_encoding(config: Config, *, classes: int, cohort: int) -> VectorEncoding:
    """Return the encoding of the metric sums of validation and test records.

    Raises:
        ConfigError: It does not fit the ring.
    """
    section = config.secure_aggregation
    most = (2**section.ring_bits - 1) // cohort
    blocks = []
    for name, histograms in _SPLITS:
        counts = compute_flat_length(classes, histograms=histograms) - 1
        blocks.append(Block(f"{name} loss", 1, MAX_LOSS * section.max_weight))
        blocks.append(Block(f"{name} counts", counts, most, "count"))
    return VectorEncoding(tuple(blocks), cohort=cohort, ring_bits=section.ring_bits)


def encode_evaluation(
    encoding: VectorEncoding,
    validation: MetricSums | None,
    test: MetricSums | None,
    *,
    generator: SecureGenerator,
) -> Words:
    """Encode one site's metric sums; a site without records of a split adds nothing.

    Returns:
        `(m,)` words.

    Raises:
        UpdateRangeError: A loss is beyond its bound.
    """
    parts: dict[str, NDArray[np.float64]] = {}
    sizes = {block.name: block.size for block in encoding.blocks}
    for (name, _), sums in zip(_SPLITS, (validation, test), strict=True):
        flat = np.zeros(1 + sizes[f"{name} counts"]) if sums is None else np.array(sums.to_flat())
        parts[f"{name} loss"], parts[f"{name} counts"] = flat[:1], flat[1:]
    return encoding.encode(parts, generator=generator)


def decode_evaluation(
    encoding: VectorEncoding, total: Words, *, survivors: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the flat metric sums of validation and test over the survivors.

    An empty array stands for a split that no site has records of.
    """
    parts = encoding.decode_sum(total, survivors)
    result = []
    for name, _ in _SPLITS:
        counts = parts[f"{name} counts"]
        flat = np.concatenate([parts[f"{name} loss"], counts])
        result.append(flat if counts.any() else np.empty(0))
    return result[0], result[1]
