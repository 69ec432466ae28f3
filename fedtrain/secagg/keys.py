"""Keys of a round, each for one purpose, and the digests that bind them to what a site saw.

Every derivation and every signature has a label of its own and covers a digest of all that the
site saw until then. Two sites that were shown different models, configs, cohorts, keys or senders
derive different mask keys, so that their masks do not cancel, and their signatures do not verify
at each other (the attack of Pasquini et al. 2022, which needs them to cancel).

References:
    RFC 5869 (HKDF), RFC 7748 (X25519), Pasquini, Francati, Ateniese 2022
    (arXiv:2111.07380): masks that depend on the model a site was shown.
"""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedtrain.secagg.faults import RefusalError

PREFIX: Final = "fedtrain/secagg/v1/"
MASK_KEY_BYTES: Final = 16
SHARE_KEY_BYTES: Final = 32
# Each share key encrypts one message in its life, so that a constant nonce is a fresh one.
_NONCE: Final = bytes(12)


def frame(label: str, *parts: bytes | str) -> bytes:
    """Return bytes that differ wherever label or parts differ: each part behind its length."""
    pieces = [(PREFIX + label).encode()]
    pieces += [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)


def compute_digest(label: str, *parts: bytes | str) -> bytes:
    """Return the SHA-256 of `frame`, 32 bytes."""
    return hashlib.sha256(frame(label, *parts)).digest()


def derive_key(secret: bytes | bytearray, label: str, *parts: bytes | str, length: int) -> bytes:
    """Return a key for one purpose: HKDF-SHA256 without salt, `frame(label, *parts)` as info."""
    info = frame(label, *parts)
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(secret)


def load_private_key(private_key: bytes | bytearray) -> X25519PrivateKey:
    """Return the X25519 key of 32 private bytes; loading costs as much as an agreement."""
    return X25519PrivateKey.from_private_bytes(private_key)


def compute_public_key(private_key: bytes | bytearray) -> bytes:
    """Return the X25519 public key of 32 private bytes."""
    return load_private_key(private_key).public_key().public_bytes_raw()


def agree(private_key: X25519PrivateKey, public_key: bytes, *, peer: str) -> bytes:
    """Return the X25519 shared secret with a peer.

    Raises:
        RefusalError: The peer's key has low order: the secret would be zero for everyone.
    """
    try:
        return private_key.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError as error:
        raise RefusalError(
            "weak-key", f"public key of {peer} has low order; drop it", suspect=peer
        ) from error


def derive_pair_key(
    private_key: X25519PrivateKey, public_key: bytes, *, view: bytes, site: str, peer: str
) -> bytes:
    """Return the mask key of a pair, equal at both ends (s_uv in Bonawitz et al. 2017, round 2).

    Args:
        private_key: X25519 mask key of `site`.
        public_key: X25519 mask key of `peer`.
        view: Digest of all that the site saw before it masks.
        site: One end.
        peer: The other.
    """
    secret = agree(private_key, public_key, peer=peer)
    return derive_key(secret, "pair-mask", view, *sorted((site, peer)), length=MASK_KEY_BYTES)


def derive_self_key(seed: bytes | bytearray, *, view: bytes, site: str) -> bytes:
    """Return the key of a site's self mask (PRG(b_u) in Bonawitz et al. 2017, round 2)."""
    return derive_key(seed, "self-mask", view, site, length=MASK_KEY_BYTES)


def derive_share_key(
    secret: bytes | bytearray, *, transcript: bytes, route: tuple[str, str]
) -> bytes:
    """Return the key that encrypts one dealer's shares for one recipient.

    Args:
        secret: What the share keys of the two agreed on.
        transcript: Digest of context and advertisements.
        route: Dealer and recipient: the two directions have different keys.
    """
    return derive_key(secret, "share", transcript, *route, length=SHARE_KEY_BYTES)


def seal(key: bytes, plaintext: bytes, *, transcript: bytes, route: tuple[str, str]) -> bytes:
    """Encrypt a dealer's shares with AES-256-GCM, the route as associated data."""
    return AESGCM(key).encrypt(_NONCE, plaintext, frame("share", transcript, *route))


def open_sealed(
    key: bytes, ciphertext: bytes, *, transcript: bytes, route: tuple[str, str]
) -> bytes:
    """Decrypt what `seal` returned.

    Raises:
        RefusalError: Key, ciphertext, transcript or route differ.
    """
    try:
        return AESGCM(key).decrypt(_NONCE, ciphertext, frame("share", transcript, *route))
    except InvalidTag as error:
        raise RefusalError(
            "share", f"the share of {route[0]!r} does not open; drop that site", suspect=route[0]
        ) from error
