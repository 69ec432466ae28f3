"""How often each site took part, and what that has cost it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedtrain.config import Config
from fedtrain.plan import (
    build_record_plan,
    build_site_plan,
    compute_planned_site_cost,
    compute_spent,
    make_entry,
)
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.privacy.site_noise import NoiseShare

from .collect import Tally


class Spending:
    """The rounds that each site of a run has paid for."""

    def __init__(self, config: Config, sites: Iterable[str]) -> None:
        """Begin with nothing spent.

        Args:
            config: The run's config.
            sites: Every site's name.
        """
        self._config = config
        self._plan = build_record_plan(config)
        self._site_plan = build_site_plan(config)
        self._rounds = dict.fromkeys(sites, 0)

    def restore(self, entries: Iterable[LedgerEntry]) -> None:
        """Count what the run's ledger says, after a resume."""
        for entry in entries:
            self._rounds[entry.site] += 1

    def record(
        self, round_: int, cohort: Sequence[str], tally: Tally, *, share: NoiseShare | None
    ) -> list[str]:
        """Count what each asked site released; return the round's ledger lines.

        A site from which no answer came may have released its update all the same: it is counted
        as if it had. Only one that declines in words has spent nothing.

        Args:
            round_: The round.
            cohort: Names of the sites that were asked.
            tally: What came of it.
            share: Each site's share of the noise in the round's secure sum, where there is one.
        """
        entries = {entry.site: entry for entry in tally.entries}
        lines = []
        for name in cohort:
            if name in tally.declined:
                continue
            entry = entries.get(name)
            if entry is None or entry.round != round_:
                entry = make_entry(
                    self._plan, site=name, round=round_, update_digest=None, share=share
                )
            self._rounds[name] += 1
            lines.append(entry.to_json())
        return lines

    def describe(self, round_: int) -> dict[str, Any]:
        """Return the metrics of what was spent so far by the site that took part most often.

        Of the config's first unit; then of the site, where both are protected; and, where sites
        are sampled, what the coordinator and a cohort's own sites could hold against one.
        """
        config, most = self._config, max(self._rounds.values())
        metrics = _describe_cost(compute_spent(config, joined=most, done=round_), "")
        if self._site_plan is None:
            return metrics
        if self._plan is not None:
            done = round_ if self._site_plan.samples else most
            metrics |= _describe_cost(compute_planned_site_cost(config, done), "site_")
        if self._site_plan.samples:
            seen = compute_planned_site_cost(config, most, outside=False)
            metrics |= _describe_cost(seen, "coordinator_")
        return metrics

    def describe_sites(
        self, round_: int, metrics: Mapping[str, Mapping[str, float]]
    ) -> list[dict[str, Any]]:
        """Return each site's own spending beside its own metrics, by name."""
        costs = {
            rounds: compute_spent(self._config, joined=rounds, done=round_)
            for rounds in set(self._rounds.values())
        }
        described: list[dict[str, Any]] = []
        for name, rounds in self._rounds.items():
            cost = costs[rounds]
            epsilon = cost.epsilon if cost is not None and np.isfinite(cost.epsilon) else None
            own = metrics.get(name, {})
            described.append({"site": name, "rounds": rounds, "epsilon": epsilon} | dict(own))
        return described


def _describe_cost(cost: PrivacyCost | None, prefix: str) -> dict[str, Any]:
    """Return a cost as metrics; JSON has no infinity: an absent epsilon means unbounded."""
    if cost is None:
        return {}
    metrics: dict[str, Any] = {f"{prefix}delta": cost.delta}
    if np.isfinite(cost.epsilon):
        metrics[f"{prefix}epsilon"] = cost.epsilon
    return metrics
