"""A model's exchanged state as one flat vector.

What sites and coordinator exchange of a model is one float32 vector of length d: its parameters,
then its floating-point buffers, in the model's own order. Parameters that are not trained
(`requires_grad` is off) and integer buffers (a batch counter) stay where they are.

Shapes: `(d,)` is the flat vector.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtrain.errors import PeerError

Vector = NDArray[np.float32]
_PIECE = 2**14


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a model's exchanged tensors, in order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Return the layout of a model."""
        tensors = exchanged_tensors(model)
        return cls(tuple(tensors), tuple(tuple(tensor.shape) for tensor in tensors.values()))

    @property
    def size(self) -> int:
        """Length d of the flat vector."""
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes)

    def describe_mismatch(self, vector: Vector) -> str:
        """Say that a vector does not fit."""
        return (
            f"a parameter vector has shape {vector.shape}, this model needs ({self.size},);"
            " the two sides run different models"
        )

    def split(self, vector: Vector) -> dict[str, Vector]:
        """Return the named tensors of a flat vector, as views.

        Args:
            vector: Flat vector, `(d,)`.

        Raises:
            PeerError: The vector has another length.
        """
        if vector.shape != (self.size,):
            raise PeerError(self.describe_mismatch(vector))
        parts, start = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            stop = start + int(np.prod(shape, dtype=np.int64))
            parts[name] = vector[start:stop].reshape(shape)
            start = stop
        return parts


def exchanged_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that are exchanged: trained parameters, then floating-point buffers."""
    tensors: dict[str, Tensor] = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    tensors |= {
        name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()
    }
    return tensors


class ModelState:
    """Reads and writes a model's exchanged state as a flat vector."""

    def __init__(self, model: nn.Module) -> None:
        self.layout = Layout.of(model)
        self._tensors = [tensor.detach() for tensor in exchanged_tensors(model).values()]
        self._sizes = [tensor.numel() for tensor in self._tensors]
        self._size = self.layout.size
        self._last: tuple[Vector, list[Tensor]] | None = None

    def read(self) -> Vector:
        """Return a copy of the state, `(d,)` float32."""
        if not self._tensors:
            return np.empty(0, np.float32)
        return torch.cat([tensor.reshape(-1) for tensor in self._tensors]).float().cpu().numpy()

    def write(self, vector: Vector) -> None:
        """Set the state from a vector `(d,)`.

        Raises:
            PeerError: The vector has another length.
        """
        if vector.shape != (self._size,):
            raise PeerError(self.layout.describe_mismatch(vector))
        if not self._tensors:
            return
        if self._last is None or self._last[0] is not vector:
            parts = torch.split(torch.from_numpy(vector), self._sizes)
            pairs = zip(self._tensors, parts, strict=True)
            self._last = vector, [part.view_as(tensor) for tensor, part in pairs]
        # Sites of one process start from one vector, round by round.
        torch._foreach_copy_(self._tensors, self._last[1])


def is_finite(vector: NDArray[np.floating[Any]]) -> bool:
    """Return whether every value is finite."""
    # NaN and infinity survive a sum, which takes half the time; one that overflows decides nothing.
    return math.isfinite(torch.from_numpy(vector).sum()) or bool(np.isfinite(vector).all())


def compute_norm(vector: NDArray[np.floating[Any]]) -> float:
    """Return the L2 norm, in float64; a piece at a time, which stays in the cache."""
    squares = 0.0
    for start in range(0, len(vector), _PIECE):
        piece = vector[start : start + _PIECE].astype(np.float64)
        squares += float(piece @ piece)
    return math.sqrt(squares)


def compute_vector_digest(vector: Vector) -> str:
    """Return the SHA-256 (hex) of a vector's little-endian float32 bytes."""
    data = np.ascontiguousarray(vector, dtype="<f4")
    return hashlib.sha256(data.data).hexdigest()
