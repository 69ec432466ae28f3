"""How good is the auditor: how often it cries wolf, and how often it sees one.

The same methods are run again and again with other seeds, on the run as it is and on one with a
fault in it. An alarm is a finding with the verdict "violated".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from fedtrain.audit.confidence import compute_proportion_interval
from fedtrain.audit.findings import Figure, Finding, Verdict
from fedtrain.audit.methods import AuditContext, Method
from fedtrain.audit.plants import Plant
from fedtrain.audit.stage import try_methods
from fedtrain.errors import ConfigError

CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Rate:
    """How often a method raised an alarm.

    Attributes:
        method: Its name.
        plant: What was broken; None where nothing was.
        alarms: Runs with an alarm.
        runs: All runs.
    """

    method: str
    plant: str | None
    alarms: int
    runs: int

    @property
    def share(self) -> float:
        """The share of runs with an alarm."""
        return self.alarms / self.runs

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of that probability (Clopper-Pearson)."""
        return compute_proportion_interval(self.alarms, self.runs, confidence=CONFIDENCE)


@dataclass(frozen=True)
class SelfTest:
    """What repeated audits showed of the auditor.

    Attributes:
        plant: What was broken in half of the audits; None where nothing was in any.
        rates: Of every method, as it is and, where something was planted, with it.
        found: Planted runs in which at least one method raised an alarm.
        runs: Planted runs.
        finding: The first planted run's finding with an alarm, if any.
    """

    plant: Plant | None
    rates: tuple[Rate, ...]
    found: int
    runs: int
    finding: Finding | None

    def get_rate(self, method: str, *, planted: bool) -> Rate:
        """Return a method's rate of alarms."""
        return next(r for r in self.rates if r.method == method and (r.plant is None) != planted)


def measure_power(
    context: AuditContext, methods: Sequence[Method], plant: Plant | None, *, repeats: int
) -> SelfTest:
    """Audit a run many times as it is, and many times with a fault.

    Args:
        context: What is audited; repetition i has its seed + i.
        methods: What is tried each time.
        plant: What to break; None measures false alarms alone.
        repeats: Audits of each kind, at least 1.

    Raises:
        ConfigError: No method looks at anything that is in the run.
    """
    plain = _count(replace(context, plant=None), methods, repeats)
    if not plain.alarms:
        raise ConfigError(
            f"{', '.join(method.name for method in methods)}: nothing of what they look at is in"
            " this run; choose another --method"
        )
    if plant is None:
        return SelfTest(None, plain.list_rates(None, repeats), 0, 0, None)
    broken = _count(replace(context, plant=plant.name), methods, repeats)
    rates = plain.list_rates(None, repeats) + broken.list_rates(plant.name, repeats)
    return SelfTest(plant, rates, broken.runs, repeats, broken.first)


def describe_self_test(context: AuditContext, test: SelfTest) -> Finding:
    """Return the finding of a self-test; `inconclusive` where a planted fault was not found."""
    figures: dict[str, Figure] = {"repeats": test.rates[0].runs}
    for rate in test.rates:
        name = f"{'false_alarm_rate' if rate.plant is None else 'power'}_{rate.method}"
        low, high = rate.interval
        figures |= {name: rate.share, f"{name}_low": low, f"{name}_high": high}
    alarms = max((rate.share for rate in test.rates if rate.plant is None), default=0.0)
    sentence = f"Of the run as it is, {100 * alarms:.2g} % of audits raised a false alarm."
    verdict: Verdict = "informative"
    if test.plant is not None:
        sentence = (
            f"Planted on purpose: {test.plant.sentence}. Found in {test.found} of {test.runs}"
            f" audits. {sentence}"
        )
        verdict = "holds" if test.found == test.runs else "inconclusive"
    return Finding(
        method=test.plant.method if test.plant is not None else "self-test",
        title="Self-test of the auditor",
        threat_model="None: the auditor itself is tested.",
        unit="record" if test.plant is None or test.plant.masks else "site",
        sample_size=test.rates[0].runs,
        confidence=CONFIDENCE,
        seed=context.seed,
        figures=figures,
        verdict=verdict,
        sentence=sentence,
    )


@dataclass
class _Counts:
    alarms: dict[str, int]
    runs: int = 0
    first: Finding | None = None

    def list_rates(self, plant: str | None, repeats: int) -> tuple[Rate, ...]:
        pairs = self.alarms.items()
        return tuple(Rate(method, plant, alarms, repeats) for method, alarms in pairs)


def _count(context: AuditContext, methods: Sequence[Method], repeats: int) -> _Counts:
    """Audit with so many seeds; count the alarms of each method."""
    counts = _Counts({})
    for seed in range(context.seed, context.seed + repeats):
        found = []
        for finding in try_methods(replace(context, seed=seed), methods):
            raised = finding.verdict == "violated"
            known = counts.alarms.get(finding.method, 0)
            counts.alarms[finding.method] = known + raised
            found += [finding] if raised else []
        counts.runs += bool(found)
        counts.first = counts.first or next(iter(found), None)
    return counts
