"""What one question for statistics gave: figures, and what they cost; as JSON and in words."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedtrain.errors import ConfigError, PeerError, RunDirectoryError
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.statistics.drift import Drift, measure_drift
from fedtrain.statistics.figures import DEFAULT_MIN_RECORDS, Figures, Sums, build_figures
from fedtrain.statistics.plan import StatisticsPlan

# In the directory of a run that asked for statistics.
RESULT_FILE: Final = "statistics.json"


@dataclass(frozen=True)
class StatisticsResult:
    """What a secure sum of statistics tells.

    Attributes:
        plan: What was asked.
        figures: Nothing of too few records.
        sites: Sites in the sum.
        cost: Of the sum, for one record; None where it is exact.
        sums: `(m,)`, kept where they have noise, for a later comparison: an exact sum tells more
            than its figures, and is not kept.
    """

    plan: StatisticsPlan
    figures: Figures
    sites: int
    cost: PrivacyCost | None
    sums: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold."""
        tree = self.figures.to_json()
        if self.sums is not None:
            tree["sums"] = list(self.sums)
        return tree | {
            "plan": json.loads(self.plan.to_text()),
            "sites": self.sites,
            "cost_a_sum": describe_cost(self.cost),
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "StatisticsResult":
        """Return the result that `to_json` wrote."""
        cost, sums = tree["cost_a_sum"], tree.get("sums")
        return cls(
            plan=StatisticsPlan.from_text(json.dumps(tree["plan"])),
            figures=Figures.from_json(tree),
            sites=int(tree["sites"]),
            cost=None if cost is None else PrivacyCost(**cost),
            sums=None if sums is None else tuple(float(value) for value in sums),
        )


def make_result(
    plan: StatisticsPlan,
    sums: Sums,
    *,
    sites: int,
    cost: PrivacyCost | None,
    noise_stddev: float,
    min_records: int = DEFAULT_MIN_RECORDS,
) -> StatisticsResult:
    """Return what a sum tells.

    Args:
        plan: What was asked.
        sums: `(m,)`, decoded.
        sites: Sites in the sum.
        cost: Of the sum; None where it is exact.
        noise_stddev: On each of its numbers.
        min_records: Below it a figure is withheld.

    Raises:
        ConfigError: `min_records` is below 1.
    """
    figures = build_figures(plan, sums, noise_stddev=noise_stddev, min_records=min_records)
    kept = None if cost is None else tuple(sums.tolist())
    return StatisticsResult(plan, figures, sites, cost, kept)


def compare_results(
    before: StatisticsResult, after: StatisticsResult, *, threshold: float, min_records: int
) -> Drift:
    """Return how far the records of a later run are from those of an earlier one.

    Args:
        before: Of the training data.
        after: Of the new data, by the same question.
        threshold: Index that says "retrain".
        min_records: As `measure_drift`.

    Raises:
        ConfigError: The questions differ, or a sum had no noise and was not kept.
        DataError: A data set has too few records.
    """
    plans = [replace(one.plan, noise_multiplier=0.0, max_records=1) for one in (before, after)]
    if plans[0] != plans[1]:
        raise ConfigError(
            "the two runs asked for different columns, bounds or bins; ask the same question of"
            " the new data"
        )
    if before.sums is None or after.sums is None:
        raise ConfigError(
            "a sum without noise is not kept, its figures alone are; compare runs that were asked"
            " with --epsilon"
        )
    sums = (np.array(one.sums) for one in (before, after))
    return measure_drift(before.plan, *sums, threshold=threshold, min_records=min_records)


def describe_cost(cost: PrivacyCost | None) -> dict[str, Any] | None:
    """Return a cost as values that JSON can hold, all that the number rests on."""
    return None if cost is None else asdict(cost)


def load_result(run: Path) -> StatisticsResult:
    """Read the result in a run's directory.

    Raises:
        RunDirectoryError: There is none, or it is damaged.
    """
    path = run / RESULT_FILE
    try:
        return StatisticsResult.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise RunDirectoryError(
            f"{path}: no such file; it is there once a run that asks for statistics has finished"
        ) from error
    except (OSError, PeerError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"{path} is damaged; fetch the run again") from error


def describe_guarantee(result: StatisticsResult, *, sums: int = 1) -> Iterator[str]:
    """Yield lines that say what left the sites, and what it cost.

    Args:
        result: Of one of the sums.
        sums: How many there were like it.
    """
    of = "1 secure sum" if sums == 1 else f"{sums} secure sums, each"
    yield (
        f"{of} over {result.sites} sites of {result.plan.length} numbers; no figure rests on fewer"
        f" than {result.figures.min_records} records."
    )
    cost = result.cost
    if cost is None:
        yield (
            "Exact sums: whoever decodes one (the coordinator) has all of it. --epsilon protects"
            " each record."
        )
        return
    yield (
        f"epsilon {cost.epsilon:.3g}{' a sum' if sums > 1 else ''} at delta {cost.delta:g} for each"
        f" record ({cost.neighbouring_relation}, {cost.accountant}); noise of standard deviation"
        f" {result.figures.noise_stddev:.3g} on each count, added by the sites in shares. It"
        " composes with whatever else is released of these records."
    )
