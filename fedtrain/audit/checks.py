"""The checks of a run directory's files against each other, each as a line of a table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fedtrain.audit.evidence import Evidence
from fedtrain.audit.files import check_config, check_lengths, check_metrics, check_model
from fedtrain.audit.question import check_answers, check_asked, check_cost
from fedtrain.audit.spending import check_epsilons, check_ledger, check_releases, check_sites
from fedtrain.audit.sums import (
    check_contexts,
    check_metrics_agree,
    check_models,
    check_roster,
    check_signatures,
)
from fedtrain.errors import AuditError, FedtrainError

HOLDS: Final = "ok"
NO_TRANSCRIPT: Final = "no transcript to check: mode {mode} signs nothing"
SIGNATURES: Final = "signatures of secure sums"
UNFINISHED: Final = "not written yet"


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


def verify_evidence(evidence: Evidence) -> list[Check]:
    """Check the files of a run against each other, without its manifest and its report."""
    try:
        asks = evidence.config.statistics is not None
    except AuditError:
        asks = False  # the first check says so
    if asks:
        return _verify_question(evidence)
    return [
        run_check("config digest", check_config, evidence),
        run_check("committed files", check_lengths, evidence),
        run_check("rounds", check_metrics, evidence),
        _run_model(evidence),
        *_run_sums(evidence),
        run_check("ledger lines", check_ledger, evidence),
        run_check("epsilons by round", check_epsilons, evidence),
        run_check("sites' rounds and epsilon", check_sites, evidence),
    ]


def _verify_question(evidence: Evidence) -> list[Check]:
    """Check a run that asked for statistics; one that is not finished has no answer yet."""
    checks = [
        run_check("config digest", check_config, evidence),
        run_check("committed files", check_lengths, evidence),
        run_check("rounds", check_metrics, evidence),
    ]
    if any(check.failed for check in checks) or evidence.state.round == 0:
        return checks
    return [
        *checks,
        run_check("roster", check_roster, evidence),
        run_check(SIGNATURES, check_signatures, evidence),
        run_check("what the sites were asked", check_asked, evidence),
        run_check("ledger against transcript", check_answers, evidence),
        run_check("epsilon of the sum", check_cost, evidence),
    ]


def run_check(name: str, function: Callable[[Evidence], int], evidence: Evidence) -> Check:
    """Return what a check comes to; what does not hold is in its result."""
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
    return run_check(name, check_model, evidence) if finished else Check(name, 0, UNFINISHED)


def _run_sums(evidence: Evidence) -> list[Check]:
    """Check roster and transcript as far as the mode has any."""
    try:
        mode = evidence.mode
    except AuditError as error:
        return [Check("secure sums", 0, str(error), failed=True)]
    checks = []
    if mode != "off" or evidence.roster_path.parent != evidence.path:
        checks.append(run_check("roster", check_roster, evidence))
    if mode != "protocol":
        return [*checks, _run_absence(evidence)]
    return [
        *checks,
        run_check(SIGNATURES, check_signatures, evidence),
        run_check("contexts of secure sums", check_contexts, evidence),
        run_check("models summed over", check_models, evidence),
        run_check("rounds against transcript", check_metrics_agree, evidence),
        run_check("ledger against transcript", check_releases, evidence),
    ]


def _run_absence(evidence: Evidence) -> Check:
    """Check that a mode without keys has no transcript that would seem to show more."""
    name = "secure sums"
    check = run_check(name, lambda found: len(found.sums), evidence)
    if check.failed:
        return check
    if check.count:
        return Check(name, 0, f"{check.count} sums, but mode {evidence.mode} signs none", True)
    return Check(name, 0, NO_TRANSCRIPT.format(mode=evidence.mode))
