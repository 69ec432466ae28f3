"""Shamir's sharing: any t shares give the secret back, and it is pycryptodome's scheme."""

import numpy as np
import pytest
from Crypto.Protocol.SecretSharing import Shamir
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg.shares import combine, split


def draw(seed=0):
    return SecureGenerator.from_seed(seed, "shares")


def combine_one(shares, points):
    table = np.frombuffer(b"".join(shares), np.uint8).reshape(1, len(points), -1)
    return combine(table, points)[0]


@st.composite
def draw_case(draw):
    points = draw(st.lists(st.integers(1, 65535), min_size=1, max_size=9, unique=True))
    threshold = draw(st.integers(1, len(points)))
    chosen = draw(st.permutations(range(len(points))))[:threshold]
    secret = draw(st.binary(min_size=16, max_size=64)).ljust(64)[: 16 * draw(st.integers(1, 4))]
    return points, threshold, chosen, secret


@given(draw_case())
@settings(max_examples=60, deadline=None)
def test_any_threshold_of_shares_gives_the_secret_back(case):
    points, threshold, chosen, secret = case
    shares = split(secret, points, threshold=threshold, generator=draw())
    found = combine_one([shares[i] for i in chosen], [points[i] for i in chosen])
    assert found == secret


@pytest.mark.parametrize(("n", "threshold"), [(3, 3), (5, 3), (20, 14)])
def test_pycryptodome_reads_these_shares(n, threshold):
    secret = bytes(range(16))
    shares = split(secret, range(1, n + 1), threshold=threshold, generator=draw())
    pairs = list(enumerate(shares, start=1))
    assert Shamir.combine(pairs[:threshold]) == secret
    assert Shamir.combine(pairs[-threshold:]) == secret


@pytest.mark.parametrize(("n", "threshold"), [(3, 3), (5, 3), (20, 14)])
def test_shares_of_pycryptodome_are_read(n, threshold):
    secret = bytes(range(16))
    pairs = Shamir.split(threshold, n, secret)[-threshold:]
    assert combine_one([share for _, share in pairs], [point for point, _ in pairs]) == secret


def test_fewer_shares_give_something_else():
    secret = bytes(range(32))
    shares = split(secret, range(1, 6), threshold=3, generator=draw())
    assert combine_one(shares[:2], [1, 2]) != secret


def test_shares_below_the_threshold_do_not_depend_on_the_secret():
    """For any one share value there is a polynomial for each secret: the bytes are uniform."""
    counts = np.zeros(256)
    for seed in range(300):
        share = split(bytes(64), [1, 2, 3], threshold=2, generator=draw(seed))[0]
        counts += np.bincount(np.frombuffer(share, np.uint8), minlength=256)
    expected = counts.sum() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 370  # 255 degrees of freedom, p = 3e-6


def test_false_share_gives_something_else():
    shares = split(bytes(16), [1, 2, 3], threshold=3, generator=draw())
    false = [bytes([shares[0][0] ^ 1]) + shares[0][1:], *shares[1:]]
    assert combine_one(false, [1, 2, 3]) != bytes(16)


@pytest.mark.parametrize(
    ("secret", "points", "threshold"),
    [
        (b"", [1, 2], 1),
        (bytes(15), [1, 2], 1),
        (bytes(16), [1, 2], 0),
        (bytes(16), [1, 2], 3),
        (bytes(16), [1, 1], 1),
        (bytes(16), [0, 1], 1),
        (bytes(16), [1, 65536], 1),
    ],
)
def test_impossible_sharing_is_refused(secret, points, threshold):
    with pytest.raises(ValueError, match=r"threshold|distinct"):
        split(secret, points, threshold=threshold, generator=draw())
