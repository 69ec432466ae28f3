"""Answers of `fedtrain privacy`: what was asked, what it costs, what that means."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.table import Table

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import PrivacyCost, Unit, compute_cost
from fedtrain.privacy.attacker import bound_true_positive_rate, describe_attacker
from fedtrain.privacy.cross_check import Answer, Method, describe_error, describe_pld_gap
from fedtrain.privacy.events import PoissonSampledGaussian
from fedtrain.privacy.renyi import NeighbouringRelation
from fedtrain.report.tables import NOTHING, format_count, format_epsilon, make_facts, make_table

FALSE_POSITIVE_RATE: Final = 0.01
UNITS: Final = {
    "record": "one record of a site",
    "person": "one person at a site, with all their records",
    "site": "one site, with all its records",
}
CHANGES: Final[dict[NeighbouringRelation, str]] = {
    "add_remove": "one more or one less",
    "replace_one": "one exchanged for another",
}
ACCOUNTANTS: Final[dict[Method, str]] = {
    "pld": "pld (privacy loss distribution, dp-accounting)",
    "prv": "prv (privacy random variables, Opacus)",
    "rdp": "rdp (Rényi, ours)",
    "opacus_rdp": "opacus_rdp (Rényi, Opacus)",
}


@dataclass(frozen=True)
class Question:
    """A run of equal steps, whose cost is asked for.

    Attributes:
        noise_multiplier: Noise standard deviation / L2 sensitivity.
        sample_rate: Poisson probability of a unit in a step.
        steps: All steps of the run.
        delta: The delta of the epsilon.
        neighbouring_relation: What neighbours are.
        unit: What is protected.
        sites: Number of sites that share the sum of a round; None where that is no matter.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    delta: float
    neighbouring_relation: NeighbouringRelation = "add_remove"
    unit: Unit = "record"
    sites: int | None = None

    def to_event(self) -> PoissonSampledGaussian:
        """Return the run as an event; raises `ConfigError` where it cannot be one."""
        return PoissonSampledGaussian(self.noise_multiplier, self.sample_rate, self.steps)

    def compute_cost(self) -> PrivacyCost:
        """Compute what the run costs."""
        return compute_cost(
            [self.to_event()],
            delta=self.delta,
            neighbouring_relation=self.neighbouring_relation,
            unit=self.unit,
        )

    def compute_noise_on_mean(self) -> float | None:
        """Return the noise's standard deviation on the mean of the sites, over their clip."""
        share = self.sample_rate * (self.sites or 0)
        return self.noise_multiplier / share if share else None


def list_warnings(question: Question, cost: PrivacyCost, records: int | None = None) -> list[str]:
    """List what a reader of the number must know.

    Args:
        question: What was asked.
        cost: What it costs.
        records: Units in the data, if said.

    Returns:
        One sentence each.
    """
    found = []
    if cost.epsilon == math.inf:
        found.append(
            f"noise_multiplier = {question.noise_multiplier:g} is too little for any guarantee:"
            " epsilon is infinite and nothing is protected; raise it."
        )
    elif cost.accountant == "rdp":
        found.append(
            f"The privacy loss distribution could not answer: {describe_pld_gap(cost.delta)}."
            " This is the Rényi bound, mostly 2 to 30 % above."
        )
    if records is not None and cost.delta > 1 / records:
        found.append(
            f"delta = {cost.delta:g} is above 1 / records = {1 / records:.3g}: to publish one"
            " record at random would keep such a promise; lower delta."
        )
    return found


def check_records(records: int | None) -> None:
    """Raise `ConfigError` where a number of records is none."""
    if records is not None and records < 1:
        raise ConfigError(f"--records = {records} is below 1; give how many there are, or leave it")


def state_meaning(cost: PrivacyCost) -> str:
    """Say in words what the cost leaves to an attacker."""
    return describe_attacker(
        cost.epsilon,
        cost.delta,
        false_positive_rate=FALSE_POSITIVE_RATE,
        neighbouring_relation=cost.neighbouring_relation,
    )


def render_cost(question: Question, cost: PrivacyCost, *, answer: str = "epsilon") -> Table:
    """Return a list of facts about one cost; the one that was asked for comes first."""
    error = describe_error(cost.accountant, cost.discretisation)
    facts = {
        "epsilon": f"{format_finite(cost.epsilon)} at delta = {cost.delta:g}",
        "noise_multiplier": f"{question.noise_multiplier:g}, the Gaussian noise / clip",
        "steps": name_steps(question),
        "sample_rate": f"{question.sample_rate:g}, Poisson (shuffled batches are not covered)",
        "unit": UNITS[cost.unit],
        "neighbours": f"{cost.neighbouring_relation}: {CHANGES[cost.neighbouring_relation]}",
        "accountant": f"{ACCOUNTANTS[cost.accountant]}: {error}",
    }
    if (noise := question.compute_noise_on_mean()) is not None:
        facts["noise on the mean"] = describe_noise_on_mean(question, noise)
    return make_facts([(answer, facts.pop(answer)), *facts.items()])


def name_steps(question: Question) -> str:
    """Return the steps with their noun: `1 step`, `1,000 steps`, `50 rounds`."""
    noun = "round" if question.unit == "site" else "step"
    return f"{question.steps:,} {noun}{'' if question.steps == 1 else 's'}"


def describe_noise_on_mean(question: Question, noise: float) -> str:
    """Say how large the noise on the mean of the sites is beside an update."""
    sites = format_count(question.sites, "site")
    text = f"{noise:.3g} of max_update_norm on every coordinate, with {sites}"
    largest = 1 / noise**2 if noise else math.inf
    if largest < 1e12:
        text += (
            f"; longer than any update as soon as the model has {max(1, math.ceil(largest)):,}"
            " parameters"
        )
    return text


def format_finite(epsilon: float) -> str:
    """Return an epsilon, rounded up, or the word."""
    if epsilon == 0:
        return "0"
    return "infinite" if epsilon == math.inf else format_epsilon(epsilon)


def to_json(question: Question, cost: PrivacyCost, warnings: Sequence[str]) -> dict[str, Any]:
    """Return everything about a cost; an infinite epsilon is null with `is_infinite`."""
    bound = bound_true_positive_rate(
        cost.epsilon, cost.delta, false_positive_rate=FALSE_POSITIVE_RATE
    )
    infinite = cost.epsilon == math.inf
    return {
        **asdict(cost),
        "epsilon": None if infinite else cost.epsilon,
        "is_infinite": infinite,
        "error": describe_error(cost.accountant, cost.discretisation),
        "noise_multiplier": question.noise_multiplier,
        "sample_rate": question.sample_rate,
        "steps": question.steps,
        "sites": question.sites,
        "noise_on_mean": question.compute_noise_on_mean(),
        "attacker": {
            "false_positive_rate": FALSE_POSITIVE_RATE,
            "true_positive_rate_at_most": bound,
        },
        "meaning": state_meaning(cost),
        "warnings": list(warnings),
    }


def render_comparison(answers: Sequence[Answer]) -> Table:
    """Return a table of accountants by relation; a dash where another had to answer."""
    by_key = {(answer.method, answer.neighbouring_relation): answer for answer in answers}
    rows = []
    for method in ACCOUNTANTS:
        cells, error = [], NOTHING
        for relation in CHANGES:
            answer = by_key[method, relation]
            is_own = answer.accountant == method
            cells.append(format_finite(answer.epsilon) if is_own else NOTHING)
            error = answer.error if is_own and error == NOTHING else error
        rows.append([ACCOUNTANTS[method], error, *cells])
    return make_table(["accountant", "error", *CHANGES], rows, texts=2)


def list_gaps(answers: Sequence[Answer]) -> list[str]:
    """List the accountants that could not answer, with why and who answered instead."""
    return [
        f"{answer.method} did not answer for {answer.neighbouring_relation} ({answer.reason});"
        f" {answer.accountant} did: {format_finite(answer.epsilon)}."
        for answer in answers
        if answer.method != answer.accountant
    ]


def to_json_comparison(
    question: Question, answers: Sequence[Answer], disagreements: Sequence[str]
) -> dict[str, Any]:
    """Return every answer; an infinite epsilon is null with `is_infinite`."""
    return {
        "delta": question.delta,
        "unit": question.unit,
        "noise_multiplier": question.noise_multiplier,
        "sample_rate": question.sample_rate,
        "steps": question.steps,
        "answers": [
            {
                **asdict(answer),
                "epsilon": None if answer.epsilon == math.inf else answer.epsilon,
                "is_infinite": answer.epsilon == math.inf,
            }
            for answer in answers
        ],
        "disagreements": list(disagreements),
    }


def describe_unit(question: Question) -> str:
    """Return the unit in words."""
    return UNITS[question.unit]
