"""Checks of the ledger, and of the epsilons that follow from it."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from fedtrain.audit.evidence import Evidence
from fedtrain.audit.files import read_vectors
from fedtrain.audit.sums import TRAINING
from fedtrain.errors import AuditError
from fedtrain.plan import (
    build_record_plan,
    build_site_plan,
    compute_planned_site_cost,
    compute_spent,
    find_accountants,
    make_entry,
)
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.privacy.ledger import LedgerEntry, compute_costs
from fedtrain.privacy.site_noise import NoiseShare
from fedtrain.training_vector import TrainingVector

# Another processor or another version of the accountant's libraries may round otherwise.
TOLERANCE: Final = 1e-9
MAX_LINES: Final = 200  # epsilons of so many rounds are recomputed, besides the last


def check_ledger(evidence: Evidence) -> int:
    """Check the ledger's lines against the config's mechanism and the rounds' cohorts."""
    plan = build_record_plan(evidence.config)
    _check_clips(evidence)
    shares = _compute_shares(evidence)
    seen: set[tuple[str, int]] = set()
    last = 1
    for number, entry in enumerate(evidence.ledger, start=1):
        where = f"ledger.jsonl: line {number}"
        due = make_entry(
            plan,
            site=entry.site,
            round=entry.round,
            update_digest=entry.update_digest,
            share=shares.get(entry.round),
        )
        # What the site's own ledger says is for the site to show (fedtrain ledger verify).
        if entry.model_copy(update={"site_head": None, "site_index": None}) != due:
            raise AuditError(f"{where}: another mechanism than the config's")
        if (entry.site, entry.round) in seen:
            raise AuditError(f"{where}: a second line of {entry.site!r} in round {entry.round}")
        if not last <= entry.round <= evidence.state.round:
            raise AuditError(f"{where}: round {entry.round} is out of order")
        seen.add((entry.site, entry.round))
        last = entry.round
    _check_counts(evidence)
    return len(evidence.ledger)


def check_releases(evidence: Evidence) -> int:
    """Check the ledger against the transcript: each vector has its line, each line its round.

    A line without a digest is of a site that was asked and did not answer: it counts as spent.
    """
    entries = {(entry.round, entry.site): entry for entry in evidence.ledger}
    cohorts: dict[int, tuple[str, ...]] = {}
    count = 0
    for one in evidence.sums:
        if one.purpose != TRAINING:
            continue
        number = one.context.round
        cohorts[number] = one.context.cohort
        for site, (digest, _) in one.record["vectors"].items():
            entry = entries.get((number, site))
            if entry is None or entry.update_digest != digest:
                found = "no line" if entry is None else "a line with another digest"
                raise AuditError(
                    f"ledger.jsonl: {found} for the vector of {site!r} in round {number}"
                )
            count += 1
    digests = sum(entry.update_digest is not None for entry in evidence.ledger)
    for entry in evidence.ledger:
        if entry.site not in cohorts.get(entry.round, ()):
            raise AuditError(
                f"ledger.jsonl: {entry.site!r} has a line of round {entry.round}, in which it was"
                " not asked"
            )
    if digests != count:
        raise AuditError(
            f"ledger.jsonl: {digests} lines with a digest, transcript.jsonl has {count} vectors"
        )
    return count


def check_epsilons(evidence: Evidence) -> int:
    """Recompute the epsilon of the rounds' lines from the ledger, and with it its delta."""
    spent, most = Counter[str](), 0
    by_round: dict[int, list[LedgerEntry]] = {}
    for entry in evidence.ledger:
        by_round.setdefault(entry.round, []).append(entry)
    step = max(1, len(evidence.metrics) // MAX_LINES)
    count = 0
    for line in evidence.metrics:
        spent.update(entry.site for entry in by_round.get(line["round"], ()))
        most = max(spent.values(), default=0)
        if line["round"] % step and line is not evidence.metrics[-1]:
            continue
        _check_spent(evidence, line, most)
        count += 1
    _check_accountant(evidence)
    return count


def check_sites(evidence: Evidence) -> int:
    """Check each site's rounds and epsilon in `sites.json` against its own ledger lines."""
    written = find_last_written(evidence)
    sites = evidence.sites
    if sites is None:
        if written is not None:
            raise AuditError(f"sites.json: missing, it was written in round {written}")
        return 0
    if written is None and evidence.state.status == "finished":
        raise AuditError("sites.json: no round wrote it")
    entries = [entry for entry in evidence.ledger if entry.round <= (written or 0)]
    _check_names(evidence, sites)
    rounds = Counter(entry.site for entry in entries)
    costs = compute_site_epsilons(evidence, entries)
    for site in sites:
        name = site["site"]
        where, done = f"sites.json: {name!r}", site["rounds"]
        if done == rounds[name] + 1 and evidence.state.status != "finished":
            continue  # written for a round that was not committed any more
        if done != rounds[name]:
            raise AuditError(f"{where}: rounds = {done}, the ledger has {rounds[name]}")
        _compare(site["epsilon"], costs.get(name, costs[""]), where)
    return len(sites)


def compute_site_epsilons(
    evidence: Evidence, entries: Iterable[LedgerEntry]
) -> dict[str, float | None]:
    """Return each site's epsilon by its ledger lines; under "" that of a site without any."""
    privacy, done = evidence.config.privacy, find_last_written(evidence) or 0
    if not privacy.covers_records:
        rounds = Counter(entry.site for entry in entries)
        spent = {
            site: compute_spent(evidence.config, joined=joined, done=done)
            for site, joined in (*rounds.items(), ("", 0))
        }
        return {site: None if cost is None else cost.epsilon for site, cost in spent.items()}
    costs = compute_costs(
        entries,
        delta=privacy.target_delta,
        neighbouring_relation=privacy.neighbouring_relation,
    )
    return {"": 0.0, **{site: cost.epsilon for site, cost in costs.items()}}


def find_last_written(evidence: Evidence) -> int | None:
    """Return the last committed round that wrote `sites.json`: the last that has metrics."""
    rounds = evidence.config.federation.rounds
    for line in reversed(evidence.metrics):
        if line["round"] == rounds or any(k.startswith(("test_", "val_")) for k in line):
            return int(line["round"])
    return None


def _check_clips(evidence: Evidence) -> None:
    """Check each round's adaptive clip as far as it follows: the first, and after void rounds.

    The clip of a round that asked sites is in their ledger lines as well.
    """
    plan = build_site_plan(evidence.config)
    clip = None if plan is None else plan.make_adaptive_clip()
    due = None if clip is None else clip.max_update_norm
    for line in evidence.metrics:
        where, found = f"metrics.jsonl: round {line['round']}", line.get("update_norm")
        if clip is None or due is not None:
            if found != due:
                raise AuditError(f"{where}: update_norm = {found}, due is {due}")
        elif not (
            isinstance(found, float) and clip.min_update_norm <= found <= clip.largest_update_norm
        ):
            raise AuditError(f"{where}: update_norm = {found} is not between the clip's bounds")
        void = line["survivors"] < max(1, evidence.config.federation.min_survivors)
        due = found if void else None


def _compute_shares(evidence: Evidence) -> dict[int, NoiseShare | None]:
    """Return the noise that a site was to add in each round, under site-level privacy."""
    if build_site_plan(evidence.config) is None:
        return {}
    size = len(read_vectors(evidence)["last"])
    least = evidence.config.secure_aggregation.min_cohort
    return {
        line["round"]: TrainingVector(
            evidence.config, size=size, cohort=line["cohort"], clip=line.get("update_norm")
        ).share
        for line in evidence.metrics
        if line["cohort"] >= least
    }


def _check_spent(evidence: Evidence, line: dict[str, Any], most: int) -> None:
    """Check a round's epsilons and deltas: of the first unit, of both, and by the coordinator."""
    config, done = evidence.config, line["round"]
    costs = {"": compute_spent(config, joined=most, done=done)}
    plan = build_site_plan(config)
    if plan is not None and config.privacy.covers_records:
        costs["site_"] = compute_planned_site_cost(config, done if plan.samples else most)
    if plan is not None and plan.samples:
        costs["coordinator_"] = compute_planned_site_cost(config, most, outside=False)
    for prefix in ("", "site_", "coordinator_"):
        _check_cost(line, prefix, costs.get(prefix))


def _check_cost(line: dict[str, Any], prefix: str, cost: PrivacyCost | None) -> None:
    where = f"metrics.jsonl: round {line['round']}"
    epsilon, delta = (None, None) if cost is None else (cost.epsilon, cost.delta)
    _compare(line.get(f"{prefix}epsilon"), epsilon, where)
    if line.get(f"{prefix}delta") != delta:
        raise AuditError(f"{where}: {prefix}delta = {line.get(f'{prefix}delta')}, due is {delta}")


def _check_counts(evidence: Evidence) -> None:
    """Check that a round's lines are at least its survivors and at most its cohort."""
    lines = Counter(entry.round for entry in evidence.ledger)
    for line in evidence.metrics:
        count = lines[line["round"]]
        if not line["survivors"] <= count <= line["cohort"]:
            raise AuditError(
                f"ledger.jsonl: {count} lines of round {line['round']}, in which"
                f" {line['survivors']} of {line['cohort']} sites survived"
            )


def _check_accountant(evidence: Evidence) -> None:
    if not evidence.metrics:
        return
    first, second = find_accountants(evidence.config)
    for name, due in (("accountant", first), ("site_accountant", second)):
        found = getattr(evidence.state, name)
        if found != due:
            raise AuditError(f"state.json: {name} = {found}, due is {due}")


def _check_names(evidence: Evidence, sites: list[dict[str, Any]]) -> None:
    """Check that `sites.json` has every site once, and nothing that it should not have."""
    allowed = {"site", "rounds", "epsilon"}
    for site in sites:
        more = sorted(set(site) - allowed)
        if more and evidence.mode != "off":
            raise AuditError(f"sites.json: {site['site']!r} has {more[0]}, which only it may know")
    names = [site["site"] for site in sites]
    known = {entry.site for entry in evidence.ledger}
    if evidence.mode != "off":
        known |= set(evidence.roster.sites)
    whole = len(names) == len(set(names)) == evidence.state.sites
    if not whole or not known <= set(names):
        raise AuditError("sites.json: does not list every site of the run once")


def _compare(found: Any, due: float | None, where: str) -> None:
    """Compare an epsilon that was written down with the recomputed one; infinity is not written."""
    wanted = None if due is None or not math.isfinite(due) else due
    if wanted is None or not isinstance(found, float):
        if found is not wanted:
            raise AuditError(f"{where}: epsilon = {found}, the ledger's is {wanted}")
        return
    if not math.isclose(found, wanted, rel_tol=TOLERANCE):
        raise AuditError(f"{where}: epsilon = {found:.10g}, the ledger's is {wanted:.10g}")
