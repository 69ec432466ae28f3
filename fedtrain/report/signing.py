"""Who vouches for a run: each site for its own ledger, the coordinator for the report.

A site's attestation is a file of `signatures/`: the digest of its own lines in the run's ledger,
and where its lifetime budget stands, signed with its long-term key. It is made at the site, which
holds the key and its own ledger, from a copy of the run directory. The report repeats what it says.
The coordinator signs the report's digest, and with it all digests that the report names.

In a simulation both keys follow from the seed: signatures show damage, not forgery, and say so.

Guarantees:
    * A signature under these labels is never one of a secure sum, a roster or a site's ledger.
    * An attestation holds only for the run, config and ledger lines that it was made for.
"""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from pydantic import Field

from fedtrain.audit.evidence import Evidence
from fedtrain.canonical import read_exactly, to_canonical
from fedtrain.errors import AuditError, RunDirectoryError, SiteError
from fedtrain.ledger.account import Account
from fedtrain.ledger.budget import compute_epsilon, format_amount
from fedtrain.ledger.entries import Entry
from fedtrain.ledger.verify import read_entries
from fedtrain.report.document import Lifetime, Part
from fedtrain.report.figures import round_up
from fedtrain.report.spending import list_sites
from fedtrain.secagg.files import load_identity
from fedtrain.secagg.roster import Identity, get_keys, is_signed
from fedtrain.secagg.simulated import make_identity

FOLDER: Final = "signatures"
SITE_LABEL: Final = "report-attestation"
MAX_SIMULATED: Final = 100  # more simulated signatures say nothing more
# As sites keep them; see `clients.custody`.
_SITE_FILE, _IDENTITY_FILE, _LEDGER_FOLDER = "site.toml", "identity.key", "ledger"


class Statement(Part):
    """What a site signs.

    Attributes:
        lines: Number of the site's own lines in `ledger.jsonl`, and
        lines_digest: their SHA-256, each with its line break.
        lifetime: Where its lifetime budget stands; null where it keeps none.
    """

    site: str
    run_id: str
    config_digest: str
    lines: int
    lines_digest: str
    lifetime: Lifetime | None


class Attestation(Part):
    """A file of `signatures/`.

    Attributes:
        key: The site's public key, hex.
        signature: Over the statement's canonical form, hex.
    """

    statement: Statement
    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")

    @classmethod
    def sign(cls, statement: Statement, identity: Identity) -> Self:
        """Return a signed statement."""
        signature = identity.sign(SITE_LABEL, to_canonical(statement.model_dump()))
        return cls(statement=statement, key=identity.public_key.hex(), signature=signature.hex())

    @property
    def file_name(self) -> str:
        """The name of its file, by the site's name, whatever characters that has."""
        return name_file(self.statement.site)

    def to_json(self) -> str:
        """Return the one text that it is written as."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            AuditError: It is not, byte for byte, an attestation's text.
        """
        return read_exactly(cls, text, name="an attestation")

    def verify(self, evidence: Evidence) -> None:
        """Check signature, key and everything signed against a run directory.

        Raises:
            AuditError: Something does not hold.
        """
        said = self.statement
        signed = to_canonical(said.model_dump())
        if said.site not in list_sites(evidence):
            raise AuditError(f"{said.site!r} is no site of the run")
        if not is_signed(
            bytes.fromhex(self.key), bytes.fromhex(self.signature), SITE_LABEL, signed
        ):
            raise AuditError(f"the signature of {said.site!r} does not verify")
        if is_pinned(evidence):
            due_key = get_keys(evidence.roster.signed.roster).get(said.site)
            if due_key is None or due_key.hex() != self.key:
                raise AuditError(f"{said.site!r} signed with another key than the roster's")
        if said.model_copy(update={"lifetime": None}) != make_statement(evidence, said.site):
            raise AuditError(f"{said.site!r} signed another run, config or other ledger lines")
        _check_heads(evidence, said)


def make_statement(evidence: Evidence, site: str, lifetime: Lifetime | None = None) -> Statement:
    """Return what a site signs of a run."""
    own = [entry for entry in evidence.ledger if entry.site == site]
    text = "".join(f"{entry.to_json()}\n" for entry in own)
    return Statement(
        site=site,
        run_id=evidence.state.run_id,
        config_digest=evidence.state.digest,
        lines=len(own),
        lines_digest=hashlib.sha256(text.encode()).hexdigest(),
        lifetime=lifetime,
    )


def describe_lifetime(entries: Sequence[Entry]) -> Lifetime:
    """Return where a site's ledger stands after its last entry."""
    account = Account.replay(entries)
    created, balance, head = account.created, account.balance, entries[-1].to_head()
    return Lifetime(
        ledger=created.ledger,
        unit=created.unit,
        neighbouring_relation=created.neighbouring_relation,
        epsilon=created.epsilon,
        delta=created.delta,
        order=created.order,
        committed=format_amount(balance.spent),
        reserved=format_amount(balance.reserved),
        total=format_amount(balance.total),
        committed_epsilon=round_up(
            compute_epsilon(balance.spent, delta=created.delta, order=created.order)
        ),
        runs=len(account.runs),
        head=head.digest,
        index=head.index,
    )


def open_site(folder: Path) -> tuple[str, Identity, Lifetime | None]:
    """Return a site's name, key and lifetime budget from its own folder.

    Raises:
        SiteError: A file is missing or unreadable.
        AuditError: Its ledger does not hold.
    """
    try:
        name = str(tomllib.loads((folder / _SITE_FILE).read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError) as error:
        raise SiteError(
            f"{folder / _SITE_FILE}: missing or damaged ({error}); name a site's own folder"
        ) from error
    identity = load_identity(folder / _IDENTITY_FILE)
    ledger = folder / _LEDGER_FOLDER
    lifetime = describe_lifetime(read_entries(ledger)) if ledger.is_dir() else None
    return name, identity, lifetime


def save_attestation(run: Path, attestation: Attestation) -> Path:
    """Write an attestation into a run directory; an older one of the same site is replaced.

    Raises:
        RunDirectoryError: It cannot be written.
    """
    path = run / FOLDER / attestation.file_name
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(attestation.to_json(), encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def load_attestations(evidence: Evidence) -> list[Attestation]:
    """Read and check all attestations of a run, by site.

    Raises:
        AuditError: One is damaged or does not hold.
    """
    found = []
    for path in sorted((evidence.path / FOLDER).glob("*.json")):
        name = f"{FOLDER}/{path.name}"
        try:
            one = Attestation.from_json(evidence.read_text(name))
            one.verify(evidence)
        except AuditError as error:
            raise AuditError(f"{name}: {error}") from error
        if path.name != one.file_name:
            raise AuditError(f"{name}: is of {one.statement.site!r}; restore it")
        found.append(one)
    return sorted(found, key=lambda one: one.statement.site)


def attest_simulated(evidence: Evidence) -> int:
    """Write the attestations of a simulation's sites that have none; return how many.

    The keys are those of its roster, made from the seed.
    """
    if not is_simulated(evidence) or evidence.mode == "off":
        return 0
    sites = evidence.roster.sites
    missing = [site for site in sites if not (evidence.path / FOLDER / name_file(site)).exists()]
    if len(sites) > MAX_SIMULATED:
        return 0
    for site in missing:
        identity = make_identity(evidence.config.run.seed, site)
        save_attestation(evidence.path, Attestation.sign(make_statement(evidence, site), identity))
    return len(missing)


def make_coordinator(seed: int) -> Identity:
    """Return a simulated coordinator's identity."""
    return Identity.from_seed(seed, "coordinator")


def is_simulated(evidence: Evidence) -> bool:
    """Say whether a run's identities, as far as it has any, are made from its seed."""
    return evidence.mode == "off" or evidence.roster.simulated


def is_pinned(evidence: Evidence) -> bool:
    """Say whether a roster says what a site's key is, and it is no simulation's."""
    return evidence.mode != "off" and not evidence.roster.simulated


def name_file(site: str) -> str:
    """Return the name of a site's file in `signatures/`."""
    return f"site-{hashlib.sha256(site.encode()).hexdigest()[:16]}.json"


def _check_heads(evidence: Evidence, said: Statement) -> None:
    """Check that the signed ledger is not older than what the run's own lines note of it."""
    noted = [one.site_index for one in evidence.ledger if one.site == said.site]
    last = max((index for index in noted if index is not None), default=None)
    if said.lifetime is not None and last is not None and said.lifetime.index < last:
        raise AuditError(
            f"{said.site!r} signed its ledger up to entry {said.lifetime.index}, the run notes"
            f" entry {last}: it was cut off"
        )
