"""Checks of a run that asked for statistics: one signed sum, its lines, its figures, its cost.

The plan that `statistics.json` names is bound into the name that every site signed, so that it is
what was asked. The sum itself is signed by nobody, and an exact one is not kept: the manifest alone
covers it, and figures without noise.
"""

import math
from functools import cached_property
from typing import Any, Final

import numpy as np

from fedtrain.aggregation import compute_model_digest, name_run
from fedtrain.audit.evidence import Evidence, SecureSum
from fedtrain.audit.files import compute_threshold
from fedtrain.config import compute_digest
from fedtrain.errors import AuditError, FedtrainError
from fedtrain.plan import make_entry
from fedtrain.protocol import QUESTION_ROUND, STATISTICS
from fedtrain.secagg.graph import plan_graph
from fedtrain.statistics.figures import build_figures
from fedtrain.statistics.result import RESULT_FILE, StatisticsResult
from fedtrain.statistics.vector import StatisticsVector

_TOLERANCE: Final = 1e-9  # another version of the accountant's libraries may round otherwise


class Question:
    """A run's one question, as its files have it; AuditError where one does not hold."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.config = evidence.config

    @cached_property
    def result(self) -> StatisticsResult:
        """What `statistics.json` says."""
        tree = self.evidence.read_json(RESULT_FILE)
        try:
            return StatisticsResult.from_json(tree)
        except (FedtrainError, KeyError, TypeError, ValueError) as error:
            raise AuditError(f"{RESULT_FILE}: not in its form ({error}); restore it") from error

    @cached_property
    def sum(self) -> SecureSum:
        """The transcript's one line."""
        sums = self.evidence.sums
        if len(sums) != 1 or sums[0].purpose != STATISTICS or "sum" not in sums[0].record:
            raise AuditError("transcript.jsonl: due is one sum of statistics that is not void")
        return sums[0]

    @cached_property
    def layout(self) -> StatisticsVector:
        """What the sites' vectors were."""
        return StatisticsVector(self.result.plan, self.config, cohort=len(self.sum.context.cohort))


def check_asked(evidence: Evidence) -> int:
    """Check what the sites were shown and signed: plan, config, cohort, threshold, ring."""
    asked = Question(evidence)
    context, section = asked.sum.context, evidence.config.secure_aggregation
    cohort, pinned = len(context.cohort), evidence.roster
    plan = plan_graph(
        cohort, dropout_share=section.dropout_share, corrupt_share=section.corrupt_share
    )
    run = name_run(
        evidence.state.digest,
        preparation_text=asked.result.plan.to_text(),
        proximal_mu=0.0,
        purpose=STATISTICS,
        run_id="" if pinned.simulated else evidence.state.run_id,
    )
    present = tuple(sorted(set(pinned.sites) - set(evidence.state.left)))
    _compare(
        "transcript.jsonl",
        {
            "run": (context.run, run),
            "round": (context.round, QUESTION_ROUND),
            "attempt": (0 <= context.attempt <= evidence.state.sittings, True),
            "federation": (context.federation, pinned.signed.roster.federation),
            "config digest": (context.config_digest.hex(), compute_digest(evidence.config)),
            "model digest": (context.model_digest, compute_model_digest(np.zeros(1, np.float32))),
            "threshold": (context.threshold, compute_threshold(evidence, cohort)),
            "ring_bits": (context.ring_bits, section.ring_bits),
            "neighbours": (context.neighbours, plan.neighbours),
            "length": (context.length, asked.layout.encoding.length),
            "cohort": (context.cohort, present),
        },
    )
    return 1


def check_answers(evidence: Evidence) -> int:
    """Check the ledger's lines: each signed vector has its own, with the noise that was due."""
    asked = Question(evidence)
    vectors = asked.sum.record["vectors"]
    entries = {entry.site: entry for entry in evidence.ledger}
    if len(entries) != len(evidence.ledger) or not set(entries) <= set(asked.sum.context.cohort):
        raise AuditError("ledger.jsonl: not one line of each site that was asked")
    for site in sorted({*vectors, *entries}):
        digest = vectors[site][0] if site in vectors else None
        due = make_entry(
            None, site=site, round=QUESTION_ROUND, update_digest=digest, share=asked.layout.share
        )
        found = entries.get(site)
        # What the site's own ledger says is for the site to show (fedtrain ledger verify).
        if found is None or found.model_copy(update={"site_head": None, "site_index": None}) != due:
            raise AuditError(f"ledger.jsonl: the line of {site!r} is not that of its vector")
    return len(entries)


def check_cost(evidence: Evidence) -> int:
    """Recompute the epsilon of `statistics.json` and `metrics.jsonl`, and compare the sums' sites.

    Nobody can tell from a run without noise that it should have had some: its epsilon is absent.
    """
    asked = Question(evidence)
    (line,), record, result = evidence.metrics, asked.sum.record, asked.result
    section, survivors = evidence.config.statistics, len(record["survivors"])
    if section is None or result.plan.noise_multiplier != (section.noise_multiplier or 0.0):
        raise AuditError(f"{RESULT_FILE}: its noise is not the config's")
    cost = asked.layout.compute_cost(evidence.config, delta=section.target_delta)
    due_figures = result.figures
    if result.sums is not None:
        due_figures = build_figures(
            result.plan,
            np.array(result.sums),
            noise_stddev=result.figures.noise_stddev,
            min_records=section.min_records,
        )
    _compare(
        RESULT_FILE,
        {
            "sites": (result.sites, survivors),
            "what its sums give": (result.figures == due_figures, True),
            "noise_stddev": (
                result.figures.noise_stddev,
                asked.layout.compute_noise_stddev(survivors),
            ),
            "cost": (result.cost is None, cost is None),
        },
    )
    due = None if cost is None else cost.epsilon
    for name, found in (
        (RESULT_FILE, None if result.cost is None else result.cost.epsilon),
        ("metrics.jsonl", line.get("epsilon")),
    ):
        if (found is None) != (due is None) or (
            found is not None and not math.isclose(found, due or 0.0, rel_tol=_TOLERANCE)
        ):
            raise AuditError(f"{name}: epsilon = {found}, due is {due}")
    _compare(
        "metrics.jsonl",
        {
            "cohort": (line["cohort"], len(asked.sum.context.cohort)),
            "survivors": (line["survivors"], survivors),
            "delta": (line.get("delta"), None if cost is None else section.target_delta),
        },
    )
    return 1


def _compare(where: str, pairs: dict[str, tuple[Any, Any]]) -> None:
    for name, (found, due) in pairs.items():
        if found != due:
            raise AuditError(f"{where}: {name} is {found}, due is {due}")
