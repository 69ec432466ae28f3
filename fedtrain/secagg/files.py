"""The files of a deployed site: its identity, the federation's root key, the signed roster.

    identity key    PEM, PKCS #8, Ed25519; private, mode 0600, never overwritten
    public key      PEM, SubjectPublicKeyInfo, Ed25519: a site's, for the roster; the root's
    signed roster   the canonical bytes of `SignedRoster`

Identity and root key never come from the coordinator. `openssl pkey -in FILE -text -noout` reads
the PEM files.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from fedtrain.durable import open_private, read_small_file, replace_file
from fedtrain.errors import SiteError
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.faults import MessageError
from fedtrain.secagg.messages import SignedRoster
from fedtrain.secagg.roster import Identity, verify_roster
from fedtrain.secagg.simulated import FEDERATION


def create_identity(path: Path) -> Identity:
    """Make a fresh identity and write its key file.

    Raises:
        SiteError: The file exists, or cannot be written.

    Guarantees:
        * An existing file is never touched.
        * The file is never readable by others, not for a moment.
    """
    identity = Identity.generate()
    key = Ed25519PrivateKey.from_private_bytes(identity.to_private_bytes())
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with open_private(path, os.O_EXCL) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise SiteError(
            f"{path} exists and is kept; use it, or name another file: the roster lists the old key"
        ) from error
    except OSError as error:
        raise SiteError(
            f"{path} cannot be written ({error.strerror}); name a file in a folder that exists"
        ) from error
    return identity


def load_identity(path: Path) -> Identity:
    """Read an identity from its key file.

    Raises:
        SiteError: It is missing, others can read it, or it is no Ed25519 key.
    """
    content = read_small_file(path, forbidden=0o077)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise SiteError(
            f"{path} is no unencrypted private key in PEM; make one with create_identity"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SiteError(f"{path} holds no Ed25519 key; make one with create_identity")
    return Identity(key.private_bytes_raw())


def save_public_key(path: Path, public_key: bytes) -> None:
    """Write a public key: a site's for its federation, or the root's for its sites.

    Raises:
        SiteError: The file cannot be written.
    """
    key = Ed25519PublicKey.from_public_bytes(public_key)
    _replace(path, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def load_public_key(path: Path) -> bytes:
    """Return the 32 bytes of a site's public key, as the federation's root lists them.

    Raises:
        SiteError: The file is missing or holds no Ed25519 public key.
    """
    return _parse_public_key(path, read_small_file(path))


def load_root_key(path: Path) -> bytes:
    """Return the 32 bytes of the federation's root key, which a site pins.

    Raises:
        SiteError: The file is missing, others may change it, or it holds no Ed25519 public key.
    """
    return _parse_public_key(path, read_small_file(path, forbidden=0o022))


def save_roster(path: Path, roster: SignedRoster) -> None:
    """Write a signed roster.

    Raises:
        SiteError: The file cannot be written.
    """
    _replace(path, encode(roster))


def load_roster(path: Path, root_public_key: bytes) -> SignedRoster:
    """Read a roster that the root signed.

    Raises:
        SiteError: The file is missing, is no roster, or a simulation's, whose keys are no secret.
        RefusalError: Another root signed it, or no one.
    """
    content = read_small_file(path)
    try:
        roster = decode(content, SignedRoster)
    except MessageError as error:
        raise SiteError(f"{path} is no signed roster ({error}); get it again") from error
    if verify_roster(roster, root_public_key).federation == FEDERATION:
        raise SiteError(
            f"{path} is the roster of a simulation ({FEDERATION!r}), whose keys anyone can compute;"
            " get the federation's own"
        )
    return roster


def _parse_public_key(path: Path, content: bytes) -> bytes:
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SiteError(f"{path} is no public key in PEM; ask for it again") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SiteError(f"{path} holds no Ed25519 key; ask for it again")
    return key.public_bytes_raw()


def _replace(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise SiteError(
            f"{path} cannot be written ({error.strerror}); name a file in a folder that exists"
        ) from error
