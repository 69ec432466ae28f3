"""A report that was handed on without its run: what can be checked of it alone.

Every epsilon, and all that follows from it, is computed again from the config and the releases that
the report repeats from the ledger; the texts are composed again from those. What rests on other
files (metrics, transcript, findings) is as its signatures say, and named as not checked.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fedtrain.audit.checks import Check
from fedtrain.config import Config, compute_digest, parse_config, to_toml
from fedtrain.errors import AuditError, FedtrainError
from fedtrain.plan import build_record_plan, compute_planned_cost, compute_spent, make_entry
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.report.bounds import build_guarantee, build_meaning, list_spent
from fedtrain.report.builder import compose
from fedtrain.report.document import Report, SiteSpending
from fedtrain.report.files import TOLERANCE, check_seal, compare, read_report
from fedtrain.report.spending import group_releases

UNCHECKED: Final = "not checked: needs the run directory"


def verify_report(path: Path, *, coordinator: str | None = None) -> list[Check]:
    """Check a report's file by itself.

    Args:
        path: `report.json`.
        coordinator: The public key, hex, that must have signed it.

    Returns:
        The checks, in order; after a form that does not hold there are no others.
    """
    try:
        signed = read_report(path)
    except AuditError as error:
        return [Check("form of the report", 0, str(error), failed=True)]
    report, checks = signed.report, [Check("form of the report", 1)]
    steps: dict[str, Callable[[], int]] = {
        "digest and signature": lambda: check_seal(signed, coordinator),
        "config digest": lambda: len([_read_config(report)]),
        "releases against the config": lambda: _check_releases(report),
        "epsilons by site": lambda: _check_sites(report),
        "guarantees and their meaning": lambda: _check_bounds(report),
        "statement, verdict, limits": lambda: _check_texts(report),
    }
    for name, step in steps.items():
        try:
            checks.append(Check(name, step()))
        except FedtrainError as error:
            checks.append(Check(name, 0, str(error), failed=True))
    return [*checks, Check("secure sums, audit, utility, files", 0, UNCHECKED)]


def _read_config(report: Report) -> Config:
    config = parse_config(report.config.toml, name="report.json: config")
    digest = compute_digest(config)
    if to_toml(config) != report.config.toml or not (
        digest == report.config.digest == report.run.config_digest
    ):
        raise AuditError(f"report.json: config.digest is not that of its config, {digest[:12]}")
    return config


def _check_releases(report: Report) -> int:
    """Check that each release is the config's mechanism, as often as it says."""
    config = _read_config(report)
    plan = build_record_plan(config)
    count = 0
    for site in report.spending.sites:
        where = f"report.json: {site.site!r}"
        for release in site.releases:
            found = LedgerEntry.from_json(_restore(release.terms))
            due = make_entry(plan, site="-", round=1, update_digest=None, share=found.noise_share)
            if found != due:
                raise AuditError(f"{where}: another mechanism than the config's")
            if len(_read_ranges(release.rounds)) != release.count:
                raise AuditError(f"{where}: rounds {release.rounds} are not {release.count}")
            count += release.count
        rounds = [number for one in site.releases for number in _read_ranges(one.rounds)]
        if len(set(rounds)) != len(rounds) or len(rounds) != site.rounds:
            raise AuditError(f"{where}: rounds = {site.rounds}, its releases have {len(rounds)}")
        if rounds and max(rounds) > report.run.rounds_done:
            raise AuditError(f"{where}: a release of round {max(rounds)}, which was not run")
    return count


def _check_sites(report: Report) -> int:
    config, done = _read_config(report), report.run.rounds_done
    for site in report.spending.sites:
        due = _compute_epsilon(config, site, done)
        if not _is_close(site.epsilon, due):
            raise AuditError(
                f"report.json: {site.site!r}: epsilon = {site.epsilon}, its releases give {due}"
            )
    return len(report.spending.sites)


def _compute_epsilon(config: Config, site: SiteSpending, done: int) -> float | None:
    if config.privacy.covers_records:
        cost = compute_planned_cost(config, site.rounds)
    else:
        cost = compute_spent(config, joined=site.rounds, done=done)
    return None if cost is None or not math.isfinite(cost.epsilon) else cost.epsilon


def _check_bounds(report: Report) -> int:
    config = _read_config(report)
    joined = max((site.rounds for site in report.spending.sites), default=0)
    spent = list_spent(config, joined=joined, done=report.run.rounds_done)
    guarantees = [build_guarantee(config, one).model_dump(mode="json") for one in spent]
    meanings = [one.model_dump(mode="json") for one in map(build_meaning, spent) if one is not None]
    tree = report.model_dump(mode="json")
    count = compare(tree["guarantees"], guarantees, "guarantees")
    return count + compare(tree["meanings"], meanings, "meanings")


def _check_texts(report: Report) -> int:
    """Check what is composed from other parts of the report."""
    due = compose(report, _read_config(report)).model_dump(mode="json")
    return compare(report.model_dump(mode="json"), due)


def _restore(terms: str) -> str:
    """Return the terms of a release as a whole line of a ledger."""
    try:
        entry = LedgerEntry.model_validate_json(f'{{"site":"-","round":1,{terms[1:]}')
    except ValueError as error:
        raise AuditError(f"report.json: the terms {terms[:60]!r} are no release") from error
    if group_releases([entry])[0].terms != terms:
        raise AuditError("report.json: the terms of a release are not in their form")
    return entry.to_json()


def _read_ranges(text: str) -> list[int]:
    """Return the numbers of ranges such as `1-3,5`."""
    numbers: list[int] = []
    try:
        for part in text.split(","):
            low, _, high = part.partition("-")
            numbers += range(int(low), int(high or low) + 1)
    except ValueError as error:
        raise AuditError(f"report.json: rounds {text!r} are no ranges") from error
    return numbers


def _is_close(found: float | None, due: float | None) -> bool:
    if found is None or due is None:
        return found is due
    return math.isclose(found, due, rel_tol=TOLERANCE)
