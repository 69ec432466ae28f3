"""The files of a report, written together and checked together.

    report.json     the report, signed
    report.html     the page
    model_card.md   for a model hub
    registry.yaml   for the registry of deployments

The other three follow from the first, so that one signature covers all.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fedtrain.audit.checks import Check
from fedtrain.audit.evidence import Evidence
from fedtrain.audit.findings import FOLDER as AUDIT_FOLDER
from fedtrain.errors import AuditError, RunDirectoryError
from fedtrain.report.builder import build_report
from fedtrain.report.document import LABEL, Report, SignedReport
from fedtrain.report.html import render_page
from fedtrain.report.model_card import render_card
from fedtrain.report.registry import render_entry
from fedtrain.report.signing import make_coordinator
from fedtrain.secagg.roster import Identity, is_signed

REPORT: Final = "report.json"
PAGE: Final = "report.html"
CARD: Final = "model_card.md"
ENTRY: Final = "registry.yaml"
# One unit of the sixth digit: another machine may round the other way.
TOLERANCE: Final = 1.2e-5


def sign_report(report: Report, identity: Identity | None, *, seed: int) -> SignedReport:
    """Return a report with its digest and the coordinator's signature over it.

    Args:
        report: The report.
        identity: The coordinator's; None: of a simulation made from the seed, of others nobody's.
        seed: The run's.
    """
    simulated = identity is None and report.run.simulated
    signer = make_coordinator(seed) if simulated else identity
    digest = report.compute_digest()
    return SignedReport(
        report=report,
        digest=digest,
        key="" if signer is None else signer.public_key.hex(),
        signature="" if signer is None else signer.sign(LABEL, digest).hex(),
        simulated=simulated,
    )


def write_report(signed: SignedReport, run: Path, out: Path) -> list[Path]:
    """Write a report's files; older ones are replaced.

    Args:
        signed: The report.
        run: The run directory, for the audit's pictures.
        out: An existing folder, or one to be made.

    Returns:
        The files.

    Raises:
        RunDirectoryError: One cannot be written.
    """
    written = []
    for name, text in render_files(signed, read_pictures(run, signed.report)).items():
        path = out / name
        try:
            out.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be written ({error.strerror})") from error
        written.append(path)
    return written


def render_files(signed: SignedReport, pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Return the text of each file, by name."""
    return {
        REPORT: signed.to_json(),
        PAGE: render_page(signed, pictures),
        CARD: render_card(signed),
        ENTRY: render_entry(signed.report),
    }


def read_pictures(run: Path, report: Report) -> dict[str, bytes]:
    """Return the pictures that the report's findings name and that are there."""
    names = [name for finding in report.audit.findings for name in finding.pictures]
    paths = {name: run / AUDIT_FOLDER / name for name in names}
    return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}


def read_report(path: Path) -> SignedReport:
    """Read a report's file.

    Raises:
        AuditError: It cannot be read, or is not in its form.
    """
    try:
        return SignedReport.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AuditError(f"{path.name}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise AuditError(f"{path.name}: not UTF-8 text; restore it") from error
    except AuditError as error:
        raise AuditError(f"{path.name}: {error}") from error


def check_seal(signed: SignedReport, coordinator: str | None = None) -> int:
    """Check a report's digest and signature; return how many signatures there are.

    Args:
        signed: The report.
        coordinator: The key that must have signed, hex; None: whichever did.

    Raises:
        AuditError: One does not hold.
    """
    if signed.report.compute_digest() != signed.digest:
        raise AuditError(f"{REPORT}: its digest is not that of its content; it was changed")
    if signed.simulated and not signed.report.run.simulated:
        raise AuditError(f"{REPORT}: says that its key is simulated, which the run is not")
    if coordinator is not None and signed.key != coordinator.lower():
        by = f"by {signed.key[:16]}" if signed.key else "by nobody"
        raise AuditError(f"{REPORT}: signed {by}, not by {coordinator[:16]}")
    if not signed.key and not signed.signature:
        return 0
    key, signature = bytes.fromhex(signed.key), bytes.fromhex(signed.signature)
    if not is_signed(key, signature, LABEL, signed.digest):
        raise AuditError(f"{REPORT}: the coordinator's signature does not verify")
    return 1


def check_report(evidence: Evidence, checks: Sequence[Check], coordinator: str | None) -> int:
    """Check a run's report: its seal, and that it is what the run directory gives.

    Returns:
        How many values were compared.

    Raises:
        AuditError: Something does not hold; the message names the first place.
    """
    signed = read_report(evidence.path / REPORT)
    check_seal(signed, coordinator)
    if signed.simulated:
        due_key = make_coordinator(evidence.config.run.seed).public_key.hex()
        if signed.key != due_key:
            raise AuditError(f"{REPORT}: says simulated, but its key is not that of the seed")
    due = build_report(evidence, checks)
    return compare(signed.report.model_dump(mode="json"), due.model_dump(mode="json"))


def check_renderings(evidence: Evidence) -> int:
    """Check that page, card and entry are what the report gives.

    Raises:
        AuditError: One is missing, or says something else.
    """
    signed = read_report(evidence.path / REPORT)
    due = render_files(signed, read_pictures(evidence.path, signed.report))
    del due[REPORT]
    for name, text in due.items():
        if evidence.read_text(name) != text:
            raise AuditError(f"{name}: not what {REPORT} gives; write it again (fedtrain report)")
    return len(due)


def compare(found: Any, due: Any, where: str = "") -> int:
    """Compare two trees of JSON's types, numbers up to a rounding; return how many values.

    Raises:
        AuditError: They differ; the message names the first place.
    """
    if isinstance(found, dict) and isinstance(due, dict):
        if list(found) != list(due):
            names = ", ".join(sorted(set(found) ^ set(due))) or "their order"
            raise AuditError(f"{REPORT}: {where or 'it'} has other entries than due: {names}")
        return sum(compare(found[key], due[key], f"{where}.{key}".lstrip(".")) for key in due)
    if isinstance(found, list) and isinstance(due, list):
        if len(found) != len(due):
            raise AuditError(f"{REPORT}: {where} has {len(found)} entries, due are {len(due)}")
        pairs = enumerate(zip(found, due, strict=True))
        return sum(compare(one, other, f"{where}[{index}]") for index, (one, other) in pairs)
    if not _is_equal(found, due):
        raise AuditError(f"{REPORT}: {where} = {_shorten(found)}, due is {_shorten(due)}")
    return 1


def _is_equal(found: Any, due: Any) -> bool:
    if isinstance(found, float) and isinstance(due, float):
        return math.isclose(found, due, rel_tol=TOLERANCE, abs_tol=1e-15)
    return type(found) is type(due) and bool(found == due)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
