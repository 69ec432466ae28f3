"""How alike an image and its reconstruction are: PSNR and SSIM.

Shapes: h x w pixels.

References:
    Wang et al. 2004, "Image quality assessment", section III: a Gaussian window of 1.5 pixels, 11
    wide or as wide as the image allows, K1 = 0.01, K2 = 0.03, mean over the windows that lie
    inside.
"""

import math
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WINDOW: Final = 11
WINDOW_STDDEV: Final = 1.5
MAX_PSNR: Final = 150.0  # of equal images; float32 gets no further
_K1, _K2 = 0.01, 0.03


def compute_psnr(image: Floats, other: Floats, *, value_range: float) -> float:
    """Return the peak signal-to-noise ratio in dB; `MAX_PSNR` where they are equal.

    Args:
        image: Of any shape.
        other: Of the same shape.
        value_range: Largest value less the smallest that a pixel may have.
    """
    error = float(np.mean((np.asarray(image, np.float64) - other) ** 2))
    if error == 0:
        return MAX_PSNR
    return min(MAX_PSNR, 10 * math.log10(value_range**2 / error))


def compute_ssim(image: Floats, other: Floats, *, value_range: float) -> float:
    """Return the structural similarity, -1 to 1; 1 for equal images.

    Args:
        image: `(h, w)`, or `(channels, h, w)`, whose channels are averaged.
        other: Of the same shape.
        value_range: As in `compute_psnr`.
    """
    if image.ndim == 3:
        pairs = zip(image, other, strict=True)
        return float(np.mean([compute_ssim(a, b, value_range=value_range) for a, b in pairs]))
    window = _make_window(min(WINDOW, *image.shape))
    first, second = np.asarray(image, np.float64), np.asarray(other, np.float64)
    mean_a, mean_b = _smooth(first, window), _smooth(second, window)
    var_a = _smooth(first * first, window) - mean_a**2
    var_b = _smooth(second * second, window) - mean_b**2
    covariance = _smooth(first * second, window) - mean_a * mean_b
    c1, c2 = (_K1 * value_range) ** 2, (_K2 * value_range) ** 2
    ratio = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    ratio /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(ratio.mean())


def _make_window(side: int) -> Floats:
    """Return a Gaussian window of an odd side, `(side, side)`, whose sum is 1."""
    side -= 1 - side % 2
    steps = np.arange(side) - side // 2
    line = np.exp(-(steps**2) / (2 * WINDOW_STDDEV**2))
    window = np.outer(line, line)
    return np.asarray(window / window.sum(), np.float64)


def _smooth(image: Floats, window: Floats) -> Floats:
    views = sliding_window_view(image, window.shape)
    smoothed: Floats = np.einsum("hwij,ij->hw", views, window)
    return smoothed
