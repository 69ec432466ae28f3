"""PSNR and SSIM, against scikit-image 0.25.2 and against their definitions."""

import numpy as np
import pytest

from fedtrain.audit.similarity import MAX_PSNR, compute_psnr, compute_ssim


def make_waves(shift):
    """Return an image of `(20, 16)` between -1 and 1."""
    y, x = np.mgrid[0:20, 0:16]
    return np.sin(x / 3.0 + shift) * np.cos(y / 4.0)


def test_psnr_is_scikit_images():
    found = compute_psnr(make_waves(0), make_waves(0.3), value_range=2)
    assert found == pytest.approx(22.954280371915758, abs=1e-9)


def test_ssim_is_scikit_images():
    found = compute_ssim(make_waves(0), make_waves(0.3), value_range=2)
    assert found == pytest.approx(0.5569122787584606, abs=1e-12)


def test_equal_images_are_as_alike_as_can_be():
    image = make_waves(0)
    assert compute_psnr(image, image, value_range=2) == MAX_PSNR
    assert compute_ssim(image, image, value_range=2) == pytest.approx(1)


def test_noise_is_unlike():
    image = make_waves(0)
    noise = np.random.default_rng(0).uniform(-1, 1, image.shape)
    assert compute_ssim(image, noise, value_range=2) < 0.2
    assert compute_psnr(image, noise, value_range=2) < 11


def test_small_images_have_a_smaller_window():
    image = make_waves(0)[:8, :8]
    assert compute_ssim(image, image + 0.01, value_range=2) == pytest.approx(1, abs=0.01)


def test_channels_are_averaged():
    image, other = make_waves(0), make_waves(0.3)
    both = compute_ssim(np.stack([image, image]), np.stack([image, other]), value_range=2)
    assert both == pytest.approx((1 + compute_ssim(image, other, value_range=2)) / 2)
