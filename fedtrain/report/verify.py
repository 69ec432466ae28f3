"""Everything about a run that can be recomputed or is signed, checked and printed as a table.

Every file is checked against the manifest that sealed the run, which shows damage and no more:
whoever writes the directory anew writes its manifest, too. So the files are also checked against
each other: `config.toml`, `state.json`, `metrics.jsonl`, `ledger.jsonl`, `sites.json`, the
checkpoint, `model.safetensors` with `model.json`, and with secure aggregation `roster.json` and
`transcript.jsonl`.

Covered by the manifest alone, since nothing else derives them: utility metrics and losses, seconds
and bytes; the words of a void round's reason in `metrics.jsonl`; digits of an epsilon beyond the
ninth; the digest of a sum (nobody signs it, and the sum itself is not kept); with modes "off" and
"arithmetic" the digests in the ledger and which sites survived; config keys that are in no digest
(`run.directory`, `data.path`, `simulation`); `environment.json`, `log.txt`, pictures, files below
`sites/`, and what `model.json` says besides digest and rounds. Files that the manifest does not
list are named as not covered. Nor is a directory covered that someone wrote anew as a whole: in a
simulation, whose keys follow from the seed, anybody can; with real identities the coordinator
cannot, for it lacks the sites' keys, and `--roster` names the roster that it did not write.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from fedtrain.audit.checks import HOLDS, SIGNATURES, UNFINISHED, Check, run_check, verify_evidence
from fedtrain.audit.evidence import Evidence
from fedtrain.audit.findings import load_findings
from fedtrain.errors import AuditError
from fedtrain.report.files import REPORT, check_renderings, check_report
from fedtrain.report.signing import load_attestations
from fedtrain.report.tables import NOTHING, make_table
from fedtrain.seal import check_files, find_unsealed, read_manifest

SIMULATED: Final = (
    "The identities are made from the run's seed: the signatures show damage, not forgery.\n"
)
SEALED: Final = "files as sealed"
MOST_LOOSE: Final = 5


def verify_run(
    path: Path, roster: Path | None = None, *, coordinator: str | None = None
) -> list[Check]:
    """Check a run directory.

    Args:
        path: The directory.
        roster: A file in the form of `roster.json`, from a source other than the directory, whose
            root and keys the signatures must verify under.
        coordinator: The public key, hex, that must have signed the report.

    Returns:
        The checks, in order; each is made, whether or not an earlier one fails.
    """
    evidence = Evidence(path, roster)
    checks = verify_evidence(evidence)
    return [*checks, *_run_additions(evidence, checks, coordinator), _run_seal(evidence)]


def raise_first(checks: Sequence[Check]) -> None:
    """Raise AuditError for the first check that fails."""
    for check in checks:
        if check.failed:
            raise AuditError(f"{check.name}: {check.result}")


def render_checks(path: Path, checks: Sequence[Check]) -> RenderableType:
    """Return the table of the checks."""
    rows = [
        (
            check.name,
            f"DOES NOT HOLD: {check.result}" if check.failed else check.result,
            str(check.count) if check.count else NOTHING,
        )
        for check in checks
    ]
    table = make_table(("checked", "result", "number"), rows, title=f"{path}", texts=2)
    return Group(table, Text(SIMULATED)) if _is_simulated(path, checks) else table


def _run_additions(
    evidence: Evidence, checks: Sequence[Check], coordinator: str | None
) -> list[Check]:
    """Check what later commands added: findings, attestations, the report."""
    path, found = evidence.path, []
    if (path / "audit").is_dir():
        found.append(
            run_check("audit findings", lambda one: len(load_findings(one.path)), evidence)
        )
    if (path / "signatures").is_dir():
        found.append(
            run_check("sites' attestations", lambda one: len(load_attestations(one)), evidence)
        )
    if (path / REPORT).exists():
        holds = not any(check.failed for check in (*checks, *found))
        found.append(
            run_check("report", lambda one: check_report(one, checks, coordinator), evidence)
            if holds
            else Check("report", 0, "not checked: what it follows from does not hold", failed=True)
        )
        found.append(run_check("page, model card, registry entry", check_renderings, evidence))
    return found


def _run_seal(evidence: Evidence) -> Check:
    """Check every file against the manifest; a run that is not finished has none yet."""
    try:
        if evidence.state.status != "finished":
            return Check(SEALED, 0, UNFINISHED)
        sealed = read_manifest(evidence.path)
        check_files(evidence.path, sealed)
    except AuditError as error:
        return Check(SEALED, 0, str(error), failed=True)
    loose = find_unsealed(evidence.path, sealed)
    return Check(SEALED, len(sealed), f"{HOLDS}{describe_loose(loose)}")


def describe_loose(names: Sequence[str]) -> str:
    """Name the files that no manifest covers, as the end of a result."""
    if not names:
        return ""
    more = f" and {len(names) - MOST_LOOSE} more" if len(names) > MOST_LOOSE else ""
    return f"; not covered: {', '.join(names[:MOST_LOOSE])}{more}"


def _is_simulated(path: Path, checks: Sequence[Check]) -> bool:
    verified = [check.name for check in checks if check.count]
    return SIGNATURES in verified and "roster" in verified and Evidence(path).roster.simulated
