"""What left the site, kept so that a site that is asked again sends the same bytes again.

A file is named by the SHA-256 of its bytes. It is durable before the entry that names it, so
that an entry never lacks its bytes; bytes without an entry were never released and are removed.
"""

import hashlib
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from fedtrain.durable import sync_folder
from fedtrain.errors import AuditError
from fedtrain.ledger.faults import LedgerError

FOLDER: Final = "releases"
_NAME: Final = re.compile(r"[0-9a-f]{64}(\.part)?")


class ReleaseStore:
    """The folder of releases; written to under the ledger's exclusive lock only."""

    def __init__(self, folder: Path, *, on_step: Callable[[str], None] | None = None) -> None:
        """Take the ledger's folder; `on_step` is called with the name of each step of a write."""
        self._folder = folder / FOLDER
        self._on_step = on_step or (lambda _: None)

    def save(self, payload: bytes) -> str:
        """Store bytes durably.

        Returns:
            Their SHA-256, hex.

        Raises:
            LedgerError: The disk refused.
        """
        digest = hashlib.sha256(payload).hexdigest()
        path = self._folder / digest
        partial = path.with_suffix(".part")
        try:
            with partial.open("wb") as file:
                file.write(payload)
                self._on_step("payload-written")
                file.flush()
                os.fsync(file.fileno())
            self._on_step("payload-synced")
            partial.replace(path)
            self._on_step("payload-renamed")
            sync_folder(self._folder)
        except OSError as error:
            raise LedgerError(
                f"{path}: cannot be written ({error.strerror}); nothing was released"
            ) from error
        self._on_step("payload-durable")
        return digest

    def load(self, digest: str) -> bytes | None:
        """Return the bytes of a digest, or None where they are not kept any more.

        Raises:
            AuditError: The bytes are not those of the digest.
            LedgerError: They cannot be read.
        """
        path = self._folder / digest
        try:
            payload = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(f"{path}: cannot be read ({error.strerror})") from error
        if hashlib.sha256(payload).hexdigest() != digest:
            raise AuditError(f"{FOLDER}/{digest[:16]}: its bytes were changed; restore it")
        return payload

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove everything but the releases of some digests."""
        for path in sorted(self._folder.iterdir()):
            if path.name not in digests and _NAME.fullmatch(path.name):
                path.unlink(missing_ok=True)
