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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from fedtrain.audit.evidence import Evidence
from fedtrain.audit.files import check_config, check_lengths, check_metrics, check_model
from fedtrain.audit.spending import check_epsilons, check_ledger, check_releases, check_sites
from fedtrain.audit.sums import (
    check_contexts,
    check_metrics_agree,
    check_models,
    check_roster,
    check_signatures,
)
from fedtrain.errors import AuditError, FedtrainError
from fedtrain.report.tables import NOTHING, make_table
from fedtrain.seal import check_files, find_unsealed, read_manifest

HOLDS: Final = "ok"
SIMULATED: Final = (
    "The identities are made from the run's seed: the signatures show damage, not forgery.\n"
)
NO_TRANSCRIPT: Final = "no transcript to check: mode {mode} signs nothing"
SIGNATURES: Final = "signatures of secure sums"
UNFINISHED: Final = "not written yet"
SEALED: Final = "files as sealed"
MOST_LOOSE: Final = 5


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: What was checked.
        count: How many of them.
        result: `ok`, why there was nothing to check, or the first thing that does not hold.
        failed: Whether something does not hold.
    """

    name: str
    count: int
    result: str = HOLDS
    failed: bool = False


def verify_run(path: Path, roster: Path | None = None) -> list[Check]:
    """Check a run directory.

    Args:
        path: The directory.
        roster: A file in the form of `roster.json`, from a source other than the directory, whose
            root and keys the signatures must verify under.

    Returns:
        The checks, in order; each is made, whether or not an earlier one fails.
    """
    evidence = Evidence(path, roster)
    return [
        _run("config digest", check_config, evidence),
        _run("committed files", check_lengths, evidence),
        _run("rounds", check_metrics, evidence),
        _run_model(evidence),
        *_run_sums(evidence),
        _run("ledger lines", check_ledger, evidence),
        _run("epsilons by round", check_epsilons, evidence),
        _run("sites' rounds and epsilon", check_sites, evidence),
        _run_seal(evidence),
    ]


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


def _run(name: str, function: Callable[[Evidence], int], evidence: Evidence) -> Check:
    try:
        return Check(name, function(evidence))
    except FedtrainError as error:
        return Check(name, 0, str(error), failed=True)


def _run_model(evidence: Evidence) -> Check:
    name = "model files"
    try:
        finished = evidence.state.status == "finished"
    except AuditError as error:
        return Check(name, 0, str(error), failed=True)
    return _run(name, check_model, evidence) if finished else Check(name, 0, UNFINISHED)


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


def _run_sums(evidence: Evidence) -> list[Check]:
    """Check roster and transcript as far as the mode has any."""
    try:
        mode = evidence.mode
    except AuditError as error:
        return [Check("secure sums", 0, str(error), failed=True)]
    checks = []
    if mode != "off" or evidence.roster_path.parent != evidence.path:
        checks.append(_run("roster", check_roster, evidence))
    if mode != "protocol":
        return [*checks, _run_absence(evidence)]
    return [
        *checks,
        _run(SIGNATURES, check_signatures, evidence),
        _run("contexts of secure sums", check_contexts, evidence),
        _run("models summed over", check_models, evidence),
        _run("rounds against transcript", check_metrics_agree, evidence),
        _run("ledger against transcript", check_releases, evidence),
    ]


def _run_absence(evidence: Evidence) -> Check:
    """Check that a mode without keys has no transcript that would seem to show more."""
    name = "secure sums"
    check = _run(name, lambda found: len(found.sums), evidence)
    if check.failed:
        return check
    if check.count:
        return Check(name, 0, f"{check.count} sums, but mode {evidence.mode} signs none", True)
    return Check(name, 0, NO_TRANSCRIPT.format(mode=evidence.mode))


def _is_simulated(path: Path, checks: Sequence[Check]) -> bool:
    verified = [check.name for check in checks if check.count]
    return SIGNATURES in verified and "roster" in verified and Evidence(path).roster.simulated
