"""Masks: AES-CTR, to the byte, and uniform; the uniformity test would see a weak generator."""

import hashlib
import tracemalloc

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedtrain.secagg.masks import PIECE, add_masks, mask_and_hash
from tests.secagg.federation import Federation, Round

KEYS = [bytes([i]) * 16 for i in range(1, 5)]


def expand(key, m, dtype):
    """The mask as the specification says it, in one call."""
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(stream.update(bytes(m * np.dtype(dtype).itemsize)), dtype)


@pytest.mark.parametrize("m", [0, 1, 7, PIECE // 4, PIECE // 4 + 1, 3 * PIECE // 4 + 5])
@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_masks_are_keystreams_added_and_subtracted(m, dtype, threads):
    vector = np.arange(m).astype(dtype)
    expected = vector + expand(KEYS[0], m, dtype) + expand(KEYS[1], m, dtype)
    expected -= expand(KEYS[2], m, dtype)
    add_masks(vector, KEYS[:2], KEYS[2:3], threads=threads)
    assert np.array_equal(vector, expected)


@pytest.mark.parametrize("m", [1, 1000, 18 * PIECE // 4 + 3])
def test_hash_is_that_of_the_masked_vector(m):
    vector, other = np.zeros(m, "<u4"), np.zeros(m, "<u4")
    digest = mask_and_hash(vector, KEYS[:1], KEYS[1:2])
    add_masks(other, KEYS[:1], KEYS[1:2])
    assert np.array_equal(vector, other)
    assert digest == hashlib.sha256(vector.tobytes()).digest()


def test_opposite_masks_cancel():
    vector = np.arange(1000, dtype="<u4")
    add_masks(vector, KEYS[:2], KEYS[:2])
    assert np.array_equal(vector, np.arange(1000))


def test_failure_of_a_thread_is_raised():
    with pytest.raises(ValueError, match="key size"):
        add_masks(np.zeros(PIECE, "<u4"), [b"short"], threads=2)


def test_memory_does_not_grow_with_masks_or_length():
    vector = np.zeros(2_000_000, "<u4")
    tracemalloc.start()
    add_masks(vector, KEYS * 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def compute_worst_chi_squared(words):
    """Largest chi-squared of the four bytes of (m,) words against uniform, in its own stddev."""
    table = words.view(np.uint8).reshape(-1, words.dtype.itemsize)
    worst = 0.0
    for column in table.T:
        counts = np.bincount(column, minlength=256)
        expected = len(column) / 256
        chi_squared = ((counts - expected) ** 2 / expected).sum()
        worst = max(worst, (chi_squared - 255) / np.sqrt(2 * 255))
    return worst


def test_masked_vectors_are_uniform():
    federation = Federation(4)
    attempt = Round(federation, federation.make_context(length=200_000)).run_until("mask")
    for site, delivery in attempt.deliveries.items():
        plain = np.full(200_000, 7, "<u4")
        masked = attempt.sessions[site].mask(plain, delivery)
        words = np.frombuffer(masked.words, "<u4")
        assert compute_worst_chi_squared(words) < 6
        assert abs(np.corrcoef(words[1:], words[:-1])[0, 1]) < 5 / np.sqrt(len(words))


@pytest.mark.parametrize("bias", ["never the top value", "low bits", "plain"])
def test_uniformity_test_rejects_a_biased_generator(bias):
    words = expand(KEYS[0], 200_000, "<u4").copy()
    match bias:
        case "never the top value":
            words[words % 256 == 255] -= np.uint32(1)
        case "low bits":
            biased = expand(KEYS[1], 200_000, "<u4") % 20 == 0
            words[biased] &= np.uint32(0xFFFFFFFE)
        case _:
            words = np.full(200_000, 7, "<u4")
    assert compute_worst_chi_squared(words) > 6


def test_equal_plain_vectors_of_two_rounds_are_masked_differently():
    federation = Federation(4)
    rounds = []
    for number in (1, 2):
        attempt = Round(
            federation, federation.make_context(round=number, length=1000), label=number
        )
        attempt.run_until("mask")
        masked = attempt.sessions["site-000"].mask(
            np.zeros(1000, "<u4"), attempt.deliveries["site-000"]
        )
        rounds.append(np.frombuffer(masked.words, "<u4"))
    assert np.count_nonzero(rounds[0] == rounds[1]) < 5
