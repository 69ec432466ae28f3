"""What a secure sum is called, and the vector of metric sums of an evaluation.

Both sides build the same encoding from the config, so that nothing of it is sent. The vector of a
round of training is `fedtrain.training_vector`.

Shapes: C classes, m elements of the encoded vector.
"""

import hashlib
import struct
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.canonical import to_canonical
from fedtrain.config import Config
from fedtrain.evaluation_parts import list_parts
from fedtrain.params import Vector
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg.encoding import Block, VectorEncoding
from fedtrain.secagg.masks import Words
from fedtrain.training.measures import Sums, build_measure
from fedtrain.training_vector import MAX_LOSS

_SPLITS: Final = (("validation", False), ("test", True))  # name, whether it has histograms


def name_run(
    config_digest: str,
    *,
    preparation_text: str,
    proximal_mu: float,
    purpose: str,
    run_id: str = "",
) -> str:
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
        run_id: The run's identifier; empty in a simulation, whose bytes are to repeat.
    """
    bound = to_canonical([preparation_text, float(proximal_mu), *([run_id] if run_id else [])])
    return f"{config_digest[:32]}-{hashlib.sha256(bound.encode()).hexdigest()[:32]}/{purpose}"


def compute_model_digest(vector: Vector, clip: float | None = None) -> bytes:
    """Return the SHA-256 of what a site is to train or evaluate, which binds every mask key.

    Args:
        vector: Global model, `(d,)`; with SCAFFOLD's control variate below it, `(2, d)`.
        clip: The round's adaptive clip. The noise is made for the scale that follows from it, a
            power of two: a site with another clip than its peers could stand nearly twice as high
            above theirs. Or, where there is none, the plateau's factor of the learning rate: were
            that of all other sites tiny, so would their updates be, and the sum one site's.
    """
    if vector.ndim == 2:
        model, control = (compute_model_digest(row) for row in vector)
        return bind_clip(bind_control(model, control), clip)
    return bind_clip(hashlib.sha256(vector.astype("<f4", copy=False).tobytes()).digest(), clip)


def bind_control(model_digest: bytes, control_digest: bytes | None) -> bytes:
    """Return the digest of a model's and a control variate's digest; without one the first."""
    if control_digest is None:
        return model_digest
    return hashlib.sha256(model_digest + control_digest).digest()


def bind_clip(model_digest: bytes, clip: float | None) -> bytes:
    """Return the digest of a model's digest and a clip; without a clip the first as it is."""
    if clip is None:
        return model_digest
    return hashlib.sha256(model_digest + struct.pack("<d", clip)).digest()


def build_evaluation_encoding(config: Config, *, classes: int, cohort: int) -> VectorEncoding:
    """Return the encoding of the metric sums of validation and test records.

    Raises:
        ConfigError: It does not fit the ring.
    """
    section = config.secure_aggregation
    most = (2**section.ring_bits - 1) // cohort
    blocks = []
    measure = build_measure(config, classes=classes)
    for name, histograms in (*_SPLITS, *((part, False) for part in list_parts(config))):
        counts = measure.count_numbers(histograms=histograms) - measure.reals
        blocks.append(Block(f"{name} loss", measure.reals, MAX_LOSS * section.max_weight))
        blocks.append(Block(f"{name} counts", counts, most, "count"))
    return VectorEncoding(tuple(blocks), cohort=cohort, ring_bits=section.ring_bits)


def encode_evaluation(
    encoding: VectorEncoding,
    validation: Sums | None,
    test: Sums | None,
    *,
    generator: SecureGenerator,
    parts: Mapping[str, Sums | None] | None = None,
) -> Words:
    """Encode one site's metric sums; a site without records of a split adds nothing.

    Args:
        encoding: The layout.
        validation: Of the validation records.
        test: Of the test records.
        generator: Source of the rounding.
        parts: By the names of `list_parts`.

    Returns:
        `(m,)` words.

    Raises:
        UpdateRangeError: A loss is beyond its bound.
    """
    blocks: dict[str, NDArray[np.float64]] = {}
    sizes = {block.name: block.size for block in encoding.blocks}
    for name, sums in {"validation": validation, "test": test, **(parts or {})}.items():
        reals = sizes[f"{name} loss"]
        length = reals + sizes[f"{name} counts"]
        flat = np.zeros(length) if sums is None else np.array(sums.to_flat())
        blocks[f"{name} loss"], blocks[f"{name} counts"] = flat[:reals], flat[reals:]
    return encoding.encode(blocks, generator=generator)


def decode_evaluation(
    encoding: VectorEncoding, total: Words, *, survivors: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the flat metric sums of validation and test over the survivors.

    An empty array stands for a split that no site has records of.
    """
    parts = decode_parts(encoding, total, survivors=survivors)
    return parts["validation"], parts["test"]


def decode_parts(
    encoding: VectorEncoding, total: Words, *, survivors: int
) -> dict[str, NDArray[np.float64]]:
    """Return the flat metric sums of every split and part over the survivors; see above."""
    blocks = encoding.decode_sum(total, survivors)
    result = {}
    for name in (block.name.removesuffix(" loss") for block in encoding.blocks[::2]):
        counts = blocks[f"{name} counts"]
        flat = np.concatenate([blocks[f"{name} loss"], counts])
        result[name] = flat if counts.any() else np.empty(0)
    return result
