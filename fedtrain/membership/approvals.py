"""What the root decided, one JSON line each, for its own records and for `show`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from fedtrain.durable import read_small_file
from fedtrain.errors import AuditError
from fedtrain.membership.files import append_line

Action = Literal["approved", "revoked"]
_END: Final = "\n"


@dataclass(frozen=True)
class Approval:
    """One decision.

    Attributes:
        time: Unix seconds, by the root's clock.
        action: "approved" (a renewal too) or "revoked".
        name: The member.
        role: Its role.
        version: Of the membership that the decision made.
        fingerprint: Of the request; empty for a revocation.
        public_key: The member's identity, hex.
        tls_key_digest: Of its TLS key, hex.
        certificate_end: Unix seconds; 0 for a revocation.
    """

    time: int
    action: Action
    name: str
    role: str
    version: int
    fingerprint: str
    public_key: str
    tls_key_digest: str
    certificate_end: int


def append_approval(path: Path, approval: Approval) -> None:
    """Write a decision; return when it is durable.

    Raises:
        SiteError: The disk is full, or the folder cannot be written.
    """
    append_line(path, json.dumps(asdict(approval)))


def load_approvals(path: Path) -> list[Approval]:
    """Read the decisions, oldest first; a last line without its end was never acted on.

    Raises:
        SiteError: The file cannot be read.
        AuditError: A line is no decision.
    """
    lines = read_small_file(path).decode("utf-8", "replace").split(_END)[:-1]
    approvals = []
    for number, line in enumerate(lines, 1):
        try:
            approvals.append(Approval(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise AuditError(f"{path}: line {number} is no decision; restore a copy") from error
    return approvals
