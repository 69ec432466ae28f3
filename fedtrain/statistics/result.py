"""What one question for statistics gave: figures, and what they cost; as JSON and in words."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fedtrain.errors import PeerError, RunDirectoryError
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.statistics.figures import Figures
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
    """

    plan: StatisticsPlan
    figures: Figures
    sites: int
    cost: PrivacyCost | None

    def to_json(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold."""
        tree = self.figures.to_json()
        return tree | {
            "plan": json.loads(self.plan.to_text()),
            "sites": self.sites,
            "cost_a_sum": describe_cost(self.cost),
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "StatisticsResult":
        """Return the result that `to_json` wrote."""
        cost = tree["cost_a_sum"]
        return cls(
            plan=StatisticsPlan.from_text(json.dumps(tree["plan"])),
            figures=Figures.from_json(tree),
            sites=int(tree["sites"]),
            cost=None if cost is None else PrivacyCost(**cost),
        )


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
