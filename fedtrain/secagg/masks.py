"""Masks: AES-128-CTR keystreams added to a vector in Z/2^k, in place.

Shapes: m elements of a vector, uint16 or uint32, little-endian.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Words = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
_BLOCK: Final = 16
# Bytes a pass: zeros, keystream and piece of the vector stay in the second-level cache together.
PIECE: Final = 2**18
_SLAB: Final = 4 * PIECE  # what is masked before it is hashed
_ZEROS: Final = bytes(PIECE)


def add_masks(
    vector: Words, positive: Sequence[bytes], negative: Sequence[bytes] = (), *, threads: int = 1
) -> None:
    """Add the keystreams of keys to a vector and subtract those of others.

    The vector is worked through once, a piece at a time, all masks on one piece: memory is that of
    the vector and one piece a thread, and the vector crosses the memory bus once, not once a mask.

    Args:
        vector: (m,) words, changed in place.
        positive: Keys of 16 bytes to add; each used for one vector in its life.
        negative: Keys to subtract.
        threads: How many work on different parts; AES and numpy let go of the interpreter's lock.

    Guarantees:
        * Word i of a mask is words [i] of AES-128-CTR(key, initial counter 0), little-endian.
        * Any number of threads gives the same bytes.
    """
    raw = vector.view(np.uint8)
    pieces = -(-len(raw) // PIECE)
    share = -(-pieces // max(threads, 1)) * PIECE
    parts = [(start, min(start + share, len(raw))) for start in range(0, len(raw), share or 1)]
    if len(parts) <= 1:
        _mask_part(vector, positive, negative, part=(0, len(raw)))
        return
    with ThreadPoolExecutor(len(parts)) as pool:
        jobs = [pool.submit(_mask_part, vector, positive, negative, part=part) for part in parts]
        for job in jobs:
            job.result()


def mask_and_hash(
    vector: Words, positive: Sequence[bytes], negative: Sequence[bytes], *, threads: int = 1
) -> bytes:
    """Do as `add_masks` and return the SHA-256 of the result, which this thread hashes meanwhile.

    A masked part is hashed while the next ones are masked by `threads` others.
    """
    raw = vector.view(np.uint8)
    digest = hashlib.sha256()
    parts = [(start, min(start + _SLAB, len(raw))) for start in range(0, len(raw), _SLAB)]
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        jobs = [pool.submit(_mask_part, vector, positive, negative, part=part) for part in parts]
        for job, (start, stop) in zip(jobs, parts, strict=True):
            job.result()
            digest.update(raw[start:stop].data)
    return digest.digest()


def _mask_part(
    vector: Words, positive: Sequence[bytes], negative: Sequence[bytes], *, part: tuple[int, int]
) -> None:
    """Mask the bytes [start, stop) of a vector; start is a multiple of `PIECE`."""
    start, stop = part
    size = vector.dtype.itemsize
    streams: list[tuple[Any, Any]] = [(_open_stream(key, start), np.add) for key in positive]
    streams += [(_open_stream(key, start), np.subtract) for key in negative]
    buffer = np.empty(PIECE + _BLOCK - 1, dtype=np.uint8)  # update_into asks for the slack
    for at in range(start, stop, PIECE):
        length = min(PIECE, stop - at)
        zeros = _ZEROS if length == PIECE else _ZEROS[:length]
        words = buffer[:length].view(vector.dtype)
        piece = vector[at // size : (at + length) // size]
        for stream, operation in streams:
            stream.update_into(zeros, buffer.data)
            operation(piece, words, out=piece)


def _open_stream(key: bytes, start: int) -> Any:
    counter = (start // _BLOCK).to_bytes(_BLOCK, "big")
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
