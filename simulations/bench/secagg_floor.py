"""The least that masks can cost: keystream at the rate of `update_into`, an addition each."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .secagg_round import Span

_PIECE: Final = 2**18  # the size at which the keystream comes fastest
_BLOCK: Final = 16
_PIECES: Final = 32
_REPEATS: Final = 8


def measure_floor(threads: int) -> Span:
    """Return what a byte of mask takes: AES-128-CTR, then one addition of numpy's.

    All is done on one piece of memory that stays in the cache; keys, hashes and the way of the
    vector through the memory are left out. The best of several repeats counts.

    Args:
        threads: How many work at once; the result is for a byte of them all together.
    """
    walls, cpus = [], []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_REPEATS):
            wall, cpu = time.perf_counter(), time.process_time()
            for job in [pool.submit(_work) for _ in range(threads)]:
                job.result()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    count = threads * _PIECES * _PIECE
    return Span(min(walls) / count, min(cpus) / count)


def count_site_masks(sites: int) -> int:
    """Return the masks of one site: one for each peer and its own."""
    return sites


def count_coordinator_masks(sites: int, dropped: int) -> int:
    """Return the masks that are left in a sum: the survivors' own, and of each pair cut in two."""
    survivors = sites - dropped
    return survivors + dropped * survivors


def _work() -> None:
    stream = Cipher(algorithms.AES(bytes(_BLOCK)), modes.CTR(bytes(_BLOCK))).encryptor()
    zeros = bytes(_PIECE)
    buffer = np.empty(_PIECE + _BLOCK - 1, dtype=np.uint8)
    words = buffer[:_PIECE].view("<u4")
    total = np.zeros_like(words)
    for _ in range(_PIECES):
        stream.update_into(zeros, buffer.data)
        np.add(total, words, out=total)
