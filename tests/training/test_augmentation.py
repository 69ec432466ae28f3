"""Views of images: what each kind does, and that a record's view is its own."""

import pytest
import torch

from fedtrain.training.augmentation import LARGEST_SHIFT, NOISE_STDDEV, Augmentation

KEY = b"task"
EVERY = ("flip", "crop", "rotate", "noise")


@pytest.fixture
def images():
    return torch.rand(200, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kinds", [(kind,) for kind in EVERY] + [EVERY])
def test_view_of_a_record_does_not_follow_from_others(kinds, images):
    together = Augmentation(kinds, KEY).apply(images)
    fewer = Augmentation(kinds, KEY).apply(images[3:7].flip(0)).flip(0)
    assert torch.equal(together[3:7], fewer)


@pytest.mark.parametrize("kind", EVERY)
def test_view_changes_from_step_to_step_and_with_the_key(kind, images):
    augmentation = Augmentation((kind,), KEY)
    first, second = augmentation.apply(images), augmentation.apply(images)
    assert not torch.equal(first, second)
    assert not torch.equal(first, Augmentation((kind,), b"other").apply(images))


def test_flip_mirrors_about_half_of_the_records(images):
    views = Augmentation(("flip",), KEY).apply(images)
    mirrored = [torch.allclose(v, i.flip(-1), atol=1e-5) for v, i in zip(views, images)]  # noqa: B905
    same = [torch.allclose(v, i, atol=1e-5) for v, i in zip(views, images)]  # noqa: B905
    assert sum(mirrored) + sum(same) == 200
    assert 60 < sum(mirrored) < 140


def test_crop_shifts_no_farther_than_its_limit(images):
    dot = torch.zeros(400, 16, 16)
    dot[:, 8, 8] = 1 + torch.arange(400) / 1e4  # each another record
    views = Augmentation(("crop",), KEY).apply(dot)
    rows = (views.sum(2) * torch.arange(16.0)).sum(1) / views.sum((1, 2))
    assert float((rows - 8).abs().max()) <= 16 * LARGEST_SHIFT + 1e-3
    assert float(rows.std()) > 0.5


def test_rotation_keeps_the_middle(images):
    disc = torch.zeros(50, 17, 17)
    disc[:, 7:10, 7:10] = (1 + torch.arange(50) / 1e3)[:, None, None]
    views = Augmentation(("rotate",), KEY).apply(disc)
    assert torch.allclose(views[:, 8, 8], disc[:, 8, 8], atol=1e-3)
    assert not torch.allclose(views, disc, atol=1e-2)


def test_noise_has_its_deviation(images):
    noise = Augmentation(("noise",), KEY).apply(images) - images
    assert float(noise.std()) == pytest.approx(NOISE_STDDEV, rel=0.02)
    assert abs(float(noise.mean())) < 5 * NOISE_STDDEV / noise.numel() ** 0.5


def test_empty_batch_stays_empty():
    assert Augmentation(EVERY, KEY).apply(torch.zeros(0, 1, 8, 8)).shape == (0, 1, 8, 8)


def test_records_stay_as_they_are(images):
    before = images.clone()
    Augmentation(EVERY, KEY).apply(images)
    assert torch.equal(images, before)
