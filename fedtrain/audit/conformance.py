"""Does the mechanism do what its guarantee was computed for? Method `conformance`.

Seconds at a site, before a run or in CI: noise, clip, sampling and divisor are read off the real
step. What a bound of epsilon would see only when the noise is halved, shows here at 2 %.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedtrain.audit.confidence import compute_stddev_interval
from fedtrain.audit.findings import Figure, Finding
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.neighbour_steps import Replay, replay_neighbours
from fedtrain.audit.plants import Subject, find_plant, make_subject
from fedtrain.audit.sentinels import Observed, watch_steps
from fedtrain.audit.site_data import open_site_data
from fedtrain.audit.step_statistics import (
    compute_noise_p_value,
    compute_normality_p_value,
    compute_rate_p_value,
    compute_repetition_p_value,
    compute_variance_p_value,
)
from fedtrain.data.shards import Split
from fedtrain.plan import RecordPlan, build_record_plan

METHOD: Final = "conformance"
STEPS: Final = 100
ROWS: Final = 1200
QUICK_STEPS: Final = 60
# Two rounds at least, so that a stream that begins anew with each is seen.
MIN_ROUNDS: Final = 2
MAX_STEPS: Final = 1000
INCLUDED: Final = 64
PAIRS: Final = 24
_WORDS: Final = {
    "noise": "less noise is added than claimed",
    "normality": "the noise is not Gaussian",
    "repetition": "noise is used more than once",
    "rate": "batches are drawn at another rate than claimed, or not by the sampler",
    "variance": "the batch size does not vary as it does under Poisson sampling",
}


@dataclass(frozen=True)
class Conformance:
    """What a site's steps showed of the mechanism.

    Attributes:
        plan: The claim.
        observed: The steps.
        noise: `(T, k)`: rows of sentinels that are in no batch, in clips.
        p_values: Of the statistical checks, by name.
        replay: Of the deterministic ones.
    """

    plan: RecordPlan
    observed: Observed
    noise: NDArray[np.float32]
    p_values: dict[str, float]
    replay: Replay

    def list_problems(self, confidence: float) -> list[str]:
        """Return in words what does not conform, at a confidence over all checks together."""
        level = (1 - confidence) / len(self.p_values)
        problems = [_WORDS[name] for name, p_value in self.p_values.items() if p_value <= level]
        if not self.replay.clipped:
            problems.append(f"a {self.plan.unit} adds more than its clip")
        if not self.replay.untouched_equal:
            problems.append(f"a {self.plan.unit} shows in parameters that it does not touch")
        return problems


def measure_conformance(
    subject: Subject, model: nn.Module, records: Split, *, steps: int = STEPS, rows: int = ROWS
) -> Conformance:
    """Watch steps at a site and replay neighbours.

    Args:
        subject: Whose plan, and what is broken of it; its plan has noise.
        model: Start model; its parameters are overwritten.
        records: Real records of the site; there may be none.
        steps: Steps to watch; more where two rounds have more.
        rows: Sentinels that are in no batch.
    """
    plan = build_record_plan(subject.claim)
    if plan is None or not plan.noise_multiplier:
        raise ValueError("conformance is of noise that is claimed; the config claims none")
    replay = replay_neighbours(subject, model, records, pairs=PAIRS)
    included = np.arange(rows + INCLUDED) < INCLUDED
    steps = max(steps, min(MIN_ROUNDS * plan.steps, MAX_STEPS))
    observed = watch_steps(subject, model, records, included=included, steps=steps)
    noise = observed.rows[:, ~included]
    p_values = {
        "noise": compute_noise_p_value(noise, plan.noise_multiplier),
        "normality": compute_normality_p_value(noise),
        "repetition": compute_repetition_p_value(noise),
        "rate": compute_rate_p_value(observed, plan.sample_rate),
        "variance": compute_variance_p_value(observed, plan.sample_rate, seed=subject.seed),
    }
    return Conformance(plan, observed, noise, p_values, replay)


def audit_conformance(context: AuditContext) -> list[Finding]:
    """Check one site's mechanism against its plan.

    Args:
        context: What is audited.

    Returns:
        One finding; none where records are not protected by noise.
    """
    plan = build_record_plan(context.config)
    if plan is None or not plan.noise_multiplier:
        return []
    site = open_site_data(context)
    subject = make_subject(context.config, seed=context.seed, plant=find_plant(context.plant))
    measured = measure_conformance(
        subject,
        site.build_model(),
        site.take_few(),
        steps=QUICK_STEPS if context.quick else STEPS,
    )
    return [_describe(context, measured)]


def _describe(context: AuditContext, measured: Conformance) -> Finding:
    problems = measured.list_problems(context.confidence)
    figures = _list_figures(measured, context.confidence)
    low, high = figures["noise_multiplier_low"], figures["noise_multiplier_high"]
    seen = (
        f"the noise that is added is between {low:.4g} and {high:.4g} times the clip, where"
        f" {measured.plan.noise_multiplier:.4g} is claimed"
    )
    sentence = (
        f"The mechanism is not the one that is claimed: {'; '.join(problems)} ({seen})."
        if problems
        else f"Noise, clip, sampling and divisor are as claimed: {seen}. It is the mechanism that"
        " was checked, at one site, and not what attackers make of it."
    )
    return Finding(
        method=METHOD,
        title="Conformance of the mechanism",
        threat_model="None: the step itself is watched, from parameters that no real record"
        " touches.",
        unit=measured.plan.unit,
        sample_size=int(measured.noise.size),
        confidence=context.confidence,
        seed=context.seed,
        figures=figures,
        verdict="violated" if problems else "holds",
        sentence=sentence,
    )


def _list_figures(measured: Conformance, confidence: float) -> dict[str, Figure]:
    plan, observed, replay = measured.plan, measured.observed, measured.replay
    squares = float(np.square(measured.noise, dtype=np.float64).sum())
    low, high = compute_stddev_interval(squares, measured.noise.size, confidence=confidence)
    mean = observed.units * plan.sample_rate
    variance = mean * (1 - plan.sample_rate)
    deviations = np.square(observed.batch_sizes - mean)
    return {
        "noise_multiplier_claimed": plan.noise_multiplier,
        "noise_multiplier_low": low,
        "noise_multiplier_high": high,
        "steps": len(observed.batch_sizes),
        # Not the sizes themselves: they tell how many records the site has.
        "batch_size_mean_ratio": round(float(observed.batch_sizes.mean()) / max(mean, 1e-9), 3),
        "batch_size_variance_ratio": round(float(deviations.mean()) / max(variance, 1e-9), 3),
        "largest_contribution_in_clips": replay.largest,
        "neighbours_replayed": replay.pairs,
        "untouched_parameters_equal": "yes" if replay.untouched_equal else "no",
        **{f"p_value_{name}": value for name, value in measured.p_values.items()},
    }
