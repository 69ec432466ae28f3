"""The audit method "single-step": the noise of one step, or of one secure sum, by many trials.

Many canaries that share nothing are each put in by a fair coin; the noisy output shows each its
own coordinate. Above a threshold, fixed by the claim before any score is seen, a canary is taken
for present; the rates of wrong accusations and of misses are bounded, and with them epsilon and mu.
The bound of epsilon assumes nothing of the noise; that of mu takes the mechanism for a mu-GDP one,
as a Gaussian is, and is nearly tight.

Shapes: m trials.

References:
    Nasr et al. 2023 (arXiv:2302.07956): bounds from rates, and the tighter one by mu-GDP.
    Clopper, Pearson 1934.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from fedtrain.audit.confidence import bound_proportion_above
from fedtrain.audit.findings import NO_PROOF, Figure, Finding, Unit
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.one_run import compute_gaussian_epsilon
from fedtrain.audit.plants import Subject, find_plant, make_subject
from fedtrain.audit.sentinels import draw_coins, watch_steps
from fedtrain.audit.site_data import open_site_data, take_first
from fedtrain.audit.site_trials import run_site_trials
from fedtrain.config import Config
from fedtrain.errors import ConfigError
from fedtrain.plan import build_record_plan, build_site_plan

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

METHOD: Final = "single-step"
TRIALS: Final = 200_000
SITE_TRIALS: Final = 40_000  # each takes a site's whole encoding
QUICK_TRIALS: Final = 10_000
QUICK_SITE_TRIALS: Final = 5_000
_MOST_RECORDS: Final = 8  # real records beside the canaries of a step


@dataclass(frozen=True)
class StepBound:
    """What many trials of one noisy output say.

    Attributes:
        epsilon: Lower bound, assuming nothing.
        mu: Lower bound of mu-GDP.
        gaussian_epsilon: That mu's epsilon.
        false_positives: Upper bound of the share of absent canaries accused, at mu's threshold.
        false_negatives: Upper bound of the share of present canaries missed.
    """

    epsilon: float
    mu: float
    gaussian_epsilon: float
    false_positives: float
    false_negatives: float


def audit_single_step(context: AuditContext) -> list[Finding]:
    """Bound the noise of a step of DP-SGD, of a noised secure sum, or of both.

    Args:
        context: What is audited.

    Returns:
        One finding a unit that the run protects; none where it protects none. `violated` where
        the bound of mu exceeds that of the claimed noise, a Gaussian's.
    """
    found = []
    if context.config.privacy.covers_records:
        count = QUICK_TRIALS if context.quick else TRIALS
        included = draw_coins(count, seed=context.seed)
        subject = make_subject(context.config, seed=context.seed, plant=find_plant(context.plant))
        scores = watch_one_step(context, subject, included)
        found.append(_describe(context, scores, included, unit=_name_unit(context.config)))
    if context.config.privacy.covers_sites:
        count = QUICK_SITE_TRIALS if context.quick else SITE_TRIALS
        included, scores = run_site_trials(context.config, count, seed=context.seed)
        found.append(_describe(context, scores, included, unit="site"))
    return found


def watch_one_step(context: AuditContext, subject: Subject, included: Bools) -> Floats:
    """Return each canary's own coordinate after one real step that all present ones join.

    Args:
        context: What is audited.
        subject: Whose noise and clip.
        included: Who is present, `(m,)`.

    Returns:
        `(m,)` in clips: 1 or 0, plus the noise.
    """
    site = open_site_data(context)
    whole = Subject(
        _join_all(subject.claim), _join_all(subject.running), subject.plant, subject.seed
    )
    few = take_first(site.train, _MOST_RECORDS)
    observed = watch_steps(whole, site.build_model(), few, included=included, steps=1)
    scores: Floats = observed.rows[0].astype(np.float64)
    return scores


def bound_step(
    scores: Floats, included: Bools, *, noise_multiplier: float, delta: float, confidence: float
) -> StepBound:
    """Bound epsilon and mu of one noisy output from independent trials of it.

    Args:
        scores: In clips: 1 where the canary is present, else 0, plus noise; `(m,)`.
        included: Whether it was, `(m,)`.
        noise_multiplier: The claim, which the thresholds follow from; they are worse where it is
            wrong, the bounds no less valid.
        delta: Of epsilon.
        confidence: Of each of the two bounds.

    Raises:
        ConfigError: There is no present or no absent canary.

    Guarantees:
        * If present and absent canaries' scores are those of neighbouring inputs of an (epsilon,
          delta)-private output, the bound exceeds epsilon with probability at most 1 - confidence;
          likewise mu.
    """
    if not included.any() or included.all():
        raise ConfigError(
            f"{len(scores)} trials without present or without absent canaries bound nothing; raise"
            " their number"
        )
    side = (1 + confidence) / 2  # two rates, bounded together
    rates = _bound_rates(scores, included, 0.5, side)
    low = _choose_low_threshold(noise_multiplier, trials=len(scores), delta=delta, confidence=side)
    mu = max(0.0, _compute_mu(*rates))
    epsilon = _compute_epsilon(*_bound_rates(scores, included, low, side), delta)
    return StepBound(
        epsilon=max(0.0, epsilon),
        mu=mu,
        gaussian_epsilon=compute_gaussian_epsilon(mu, delta),
        false_positives=rates[0],
        false_negatives=rates[1],
    )


def _choose_low_threshold(
    noise_multiplier: float, *, trials: int, delta: float, confidence: float
) -> float:
    """Return the threshold of which the claimed Gaussian is expected to give most epsilon.

    Half way between absent and present, the bound of mu is best: there the two rates' errors, in
    units of a Gaussian's quantiles, are least together. The bound of epsilon wants few accused.
    """
    half = trials // 2
    found = []
    for step in range(61):
        threshold = 0.5 + step * (3 * noise_multiplier + 0.5) / 60
        wrong = round(half * float(ndtr(-threshold / noise_multiplier)))
        missed = round(half * float(ndtr((threshold - 1) / noise_multiplier)))
        rates = (
            bound_proportion_above(wrong, half, confidence=confidence),
            bound_proportion_above(missed, half, confidence=confidence),
        )
        found.append((_compute_epsilon(*rates, delta), -threshold))
    return -max(found)[1]


def _bound_rates(
    scores: Floats, included: Bools, threshold: float, confidence: float
) -> tuple[float, float]:
    """Return upper bounds of the rates of wrong accusations and of misses above a threshold."""
    accused = scores > threshold
    wrong, missed = accused & ~included, ~accused & included
    present = int(np.count_nonzero(included))
    return (
        bound_proportion_above(
            int(np.count_nonzero(wrong)), len(scores) - present, confidence=confidence
        ),
        bound_proportion_above(int(np.count_nonzero(missed)), present, confidence=confidence),
    )


def _compute_mu(false_positives: float, false_negatives: float) -> float:
    return float(ndtri(1 - false_positives) - ndtri(false_negatives))


def _compute_epsilon(false_positives: float, false_negatives: float, delta: float) -> float:
    """Return what either direction of (epsilon, delta) needs at least for such rates."""
    first = (1 - delta - false_negatives) / false_positives
    second = (1 - delta - false_positives) / false_negatives
    return math.log(max(first, second, 1e-300))


def _join_all(config: Config) -> Config:
    """Return the config with every record in every step."""
    training = config.training.model_copy(update={"sample_rate": 1.0})
    return config.model_copy(update={"training": training})


def _name_unit(config: Config) -> Unit:
    return "person" if config.privacy.covers_persons else "record"


def _find_claim(config: Config, unit: Unit) -> tuple[float, float]:
    """Return the claimed noise multiplier and the delta of a unit."""
    record, site = build_record_plan(config), build_site_plan(config)
    if unit == "site" and site is not None:
        return site.noise_multiplier, config.privacy.site.target_delta
    if record is None:
        raise ConfigError(f"privacy.unit = '{config.privacy.unit}' has no noise of a {unit}")
    return record.noise_multiplier, config.privacy.target_delta


def _describe(context: AuditContext, scores: Floats, included: Bools, *, unit: Unit) -> Finding:
    noise, delta = _find_claim(context.config, unit)
    bound = bound_step(
        scores,
        included,
        noise_multiplier=noise,
        delta=delta,
        confidence=context.confidence,
    )
    claimed = compute_gaussian_epsilon(1 / noise, delta)
    is_broken = bound.mu > 1 / noise
    where = "one step at one site" if unit != "site" else "one secure sum"
    figures: dict[str, Figure] = {
        "epsilon_lower_bound": bound.gaussian_epsilon,
        "epsilon_lower_bound_any_noise": bound.epsilon,
        "epsilon_claimed": claimed,
        "delta": delta,
        "neighbouring_relation": "add_remove",
        "mu_lower_bound": bound.mu,
        "mu_claimed": 1 / noise,
        "noise_multiplier_claimed": noise,
        "noise_multiplier_high": 1 / bound.mu if bound.mu else None,
        "false_positive_rate_high": bound.false_positives,
        "false_negative_rate_high": bound.false_negatives,
    }
    sentence = (
        f"{len(scores):,} canaries in {where}, each in or out by a coin: epsilon of that step alone"
        f" is at least {bound.gaussian_epsilon:.2f} with {100 * context.confidence:g} % confidence,"
        f" where its noise claims {claimed:.2f}"
    )
    sentence += (
        ": less noise is added than is claimed." if is_broken else f": no contradiction. {NO_PROOF}"
    )
    return Finding(
        method=METHOD if unit != "site" else f"{METHOD}-site",
        title="Noise of a single step, by many trials",
        threat_model=_describe_threat(unit),
        unit=unit,
        sample_size=len(scores),
        confidence=context.confidence,
        seed=context.seed,
        figures=figures,
        verdict="violated" if is_broken else "holds",
        sentence=sentence,
    )


def _describe_threat(unit: Unit) -> str:
    if unit == "site":
        return (
            "A coordinator with as many sites as the claim allows: it sees a sum over the fewest"
            " survivors, less its own sites' shares of the noise, and chooses the site's update."
        )
    return (
        "The attacker sees one noisy gradient that every record joins, knows every other record,"
        " and chooses the record."
    )
