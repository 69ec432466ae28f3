"""Views of images: in each step a record is seen flipped, shifted, turned or noised.

A record has one view a step, and trains with that alone: it is still one record that is clipped.

Shapes: B records of `(channels, height, width)` or `(height, width)`.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LARGEST_SHIFT: Final = 0.125  # of height and width
LARGEST_TURN: Final = 15.0  # degrees
NOISE_STDDEV: Final = 0.05  # of what a prepared pixel ranges over, 0 to 1
_DIGEST_BYTES: Final = 32


class Augmentation:
    """Draws a view of each record of a batch.

    Guarantees:
        A record's view follows from the record, the key and the number of the step, and from no
        other record: so one record more or less changes the sum of clipped gradients by no more
        than with records as they are, whoever knows the key.
    """

    def __init__(self, kinds: Sequence[str], key: bytes) -> None:
        """Take what to do.

        Args:
            kinds: Of `flip` (left and right, every other time), `crop` (shift by up to an eighth,
                what comes in is 0), `rotate` (by up to 15 degrees) and `noise`.
            key: Of the task, at most 56 bytes.
        """
        self._kinds, self._key, self._step = frozenset(kinds), key, 0

    def apply(self, images: Tensor) -> Tensor:
        """Return the next step's views, of the same shape; the images stay as they are."""
        self._step += 1
        if not len(images):
            return images
        digests = self._digest(images)
        coins = np.frombuffer(b"".join(digests), "<u4").reshape(len(images), -1)
        uniform = torch.from_numpy((coins / 2.0**32).astype(np.float32)).to(
            images.device
        )  # (B, 8), of which 4 are used
        views = self._move(images, uniform.to(images.device))
        return self._add_noise(views, digests) if "noise" in self._kinds else views

    def _digest(self, images: Tensor) -> list[bytes]:
        """Return a keyed digest of each record."""
        key = self._key + self._step.to_bytes(8, "big")
        rows = images.contiguous().flatten(1).cpu().numpy()
        return [
            hashlib.blake2b(row.tobytes(), key=key, digest_size=_DIGEST_BYTES).digest()
            for row in rows
        ]

    def _move(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Return images flipped, shifted and turned, by one map of places each."""
        if not self._kinds & {"flip", "crop", "rotate"}:
            return images
        zero = uniform.new_zeros(())
        signs = torch.ones_like(uniform[:, 0])
        if "flip" in self._kinds:
            signs = torch.where(uniform[:, 0] < 0.5, -1.0, 1.0)
        angles, shifts = zero.expand(len(images)), zero.expand(len(images), 2)
        if "rotate" in self._kinds:
            angles = (2 * uniform[:, 1] - 1) * math.radians(LARGEST_TURN)
        if "crop" in self._kinds:
            shifts = (2 * uniform[:, 2:4] - 1) * 2 * LARGEST_SHIFT  # a side is 2 wide
        cos, sin = torch.cos(angles), torch.sin(angles)
        first = torch.stack([signs * cos, -sin, shifts[:, 0]], 1)
        second = torch.stack([signs * sin, cos, shifts[:, 1]], 1)
        maps = torch.stack([first, second], 1).to(images.dtype)
        planes = images if images.dim() == 4 else images.unsqueeze(1)
        grid = functional.affine_grid(maps, list(planes.shape), align_corners=False)
        moved = functional.grid_sample(planes, grid, align_corners=False)
        return moved.view_as(images)

    def _add_noise(self, images: Tensor, digests: Sequence[bytes]) -> Tensor:
        noise = torch.empty_like(images, device="cpu")
        for row, digest in zip(noise, digests, strict=True):
            seed = int.from_bytes(digest[-8:], "big") >> 1
            row.normal_(generator=torch.Generator().manual_seed(seed))
        return images + NOISE_STDDEV * noise.to(images.device)
