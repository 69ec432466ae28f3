"""Which epsilons a run has: for which unit, against whom, and what each is called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

UNITS: Final = {
    "record": "one record of a site",
    "person": "one person with all records at a site",
    "site": "one whole site",
}
SHORT: Final = {"record": "one record", "person": "one person", "site": "one site"}
AGAINST_COORDINATOR: Final = "to the coordinator"


@dataclass(frozen=True)
class Guarantee:
    """One epsilon of a run.

    Attributes:
        prefix: Of its keys in `metrics.jsonl`: `<prefix>epsilon` and `<prefix>delta`.
        unit: `record`, `person` or `site`.
        name: What it protects, and, where that differs, against whom.
    """

    prefix: str
    unit: str
    name: str

    @property
    def key(self) -> str:
        """The key of its epsilon."""
        return f"{self.prefix}epsilon"

    @property
    def delta_key(self) -> str:
        """The key of its delta."""
        return f"{self.prefix}delta"


def list_guarantees(config: Mapping[str, Any]) -> list[Guarantee]:
    """Return a run's epsilons, that of the config's first unit first.

    Args:
        config: The resolved config as nested dicts.
    """
    unit = str(config.get("privacy", {}).get("unit", "none"))
    if unit == "none":
        return []
    first, _, second = unit.partition("_and_")
    guarantees = [Guarantee("", first, SHORT.get(first, first))]
    if second:
        guarantees.append(Guarantee("site_", "site", SHORT["site"]))
    rate = config.get("federation", {}).get("site_sample_rate")
    if guarantees[-1].unit == "site" and rate is not None and rate < 1:
        guarantees.append(Guarantee("coordinator_", "site", AGAINST_COORDINATOR))
    return guarantees
