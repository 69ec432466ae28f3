"""The empirical epsilon of a record or person, from one run with sentinels: method `sentinels`.

The claim is tested as a whole trade-off curve, so that the verdict rests on nothing but the claim;
the bounds of epsilon are printed beside it.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from fedtrain.audit.findings import NO_PROOF, Figure, Finding, Unit, Verdict
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.one_run import (
    Coins,
    GuessPlan,
    Scores,
    bound_epsilon,
    bound_gaussian_epsilon,
    choose_guesses,
    compute_claim_p_value,
)
from fedtrain.audit.plants import find_plant, make_subject
from fedtrain.audit.sentinels import draw_coins, score_rows, simulate_scores, watch_steps
from fedtrain.audit.site_data import open_site_data
from fedtrain.config import Config
from fedtrain.plan import RecordPlan, build_record_plan
from fedtrain.privacy.accounting import PrivacyCost, compute_cost
from fedtrain.privacy.trade_off import Profile, compute_profile

METHOD: Final = "sentinels"
MAX_STEPS: Final = 500
QUICK_STEPS: Final = 60
QUICK_CANARIES: Final = 1000
THREAT_MODEL: Final = (
    "The attacker sees the noisy gradient of every step at one site, knows every other record, and"
    " chooses the record."
)


@dataclass(frozen=True)
class Claim:
    """What so many steps of a plan are said to cost one record or person, more or less.

    Attributes:
        plan: The plan.
        steps: Steps that are audited, from the first.
        cost: At the config's delta, by `add_remove`, whatever the config's relation is: a canary
            is in the data or not.
        profile: The same at many deltas.
        for_bound: The guesses that the bounds of epsilon are made of: those that give the largest
            if all is as claimed.
        for_verdict: Those that the verdict is made of: as for half the claimed noise.
    """

    plan: RecordPlan
    steps: int
    cost: PrivacyCost
    profile: Profile
    for_bound: GuessPlan
    for_verdict: GuessPlan


def make_claim(config: Config, *, steps: int, canaries: int, confidence: float) -> Claim | None:
    """Return the claim of a resolved config for its first steps; None where it claims nothing.

    Args:
        config: The resolved config.
        steps: Most steps to audit; fewer where the run has fewer.
        canaries: m.
        confidence: Of the bounds.
    """
    plan = build_record_plan(config)
    if plan is None or not plan.noise_multiplier:
        return None
    steps = min(steps, plan.steps * config.federation.rounds)
    return _make_claim(plan, steps, config.privacy.target_delta, canaries, confidence)


@lru_cache(maxsize=16)
def _make_claim(
    plan: RecordPlan, steps: int, delta: float, canaries: int, confidence: float
) -> Claim:
    event = replace(plan.to_event(1), steps=steps)
    cost = compute_cost([event], delta=delta, unit=plan.unit)
    for_bound, for_verdict = (
        choose_guesses(
            *simulate_scores(plan, steps, noise_divisor=divisor),
            canaries=canaries,
            confidence=confidence,
        )
        for divisor in (1.0, 2.0)
    )
    return Claim(plan, steps, cost, compute_profile([event]), for_bound, for_verdict)


def audit_sentinels(context: AuditContext) -> list[Finding]:
    """Run the steps of one site with sentinels in it and guess who was in.

    Args:
        context: What is audited.

    Returns:
        One finding; none where records are not protected.
    """
    canaries = QUICK_CANARIES if context.quick else context.canaries
    claim = make_claim(
        context.config,
        steps=QUICK_STEPS if context.quick else MAX_STEPS,
        canaries=canaries,
        confidence=context.confidence,
    )
    if claim is None:
        return []
    site = open_site_data(context)
    subject = make_subject(context.config, seed=context.seed, plant=find_plant(context.plant))
    included = draw_coins(canaries, seed=context.seed)
    observed = watch_steps(
        subject, site.build_model(), site.take_few(), included=included, steps=claim.steps
    )
    scores = score_rows(observed.rows, claim.plan)
    figures = judge(scores, included, claim, confidence=context.confidence)
    return [_describe(context, claim, figures)]


def judge(scores: Scores, included: Coins, claim: Claim, *, confidence: float) -> dict[str, Figure]:
    """Return the figures of scores against a claim.

    Args:
        scores: `(m,)`, higher for canaries that seem to be in.
        included: `(m,)`, the coins.
        claim: With the guesses that were registered.
        confidence: Of each bound, and of the verdict.
    """
    bound, verdict = (plan.guess(scores, included) for plan in (claim.for_bound, claim.for_verdict))
    delta = claim.cost.delta
    return {
        "epsilon_lower_bound": bound_gaussian_epsilon(bound, delta=delta, confidence=confidence),
        "epsilon_lower_bound_steinke": bound_epsilon(bound, delta=delta, confidence=confidence),
        "epsilon_claimed": claim.cost.epsilon,
        "delta": delta,
        "neighbouring_relation": claim.cost.neighbouring_relation,
        "accountant": claim.cost.accountant,
        "p_value": compute_claim_p_value(verdict, claim.profile),
        "canaries": bound.canaries,
        "guesses": verdict.made,
        "guesses_correct": verdict.correct,
        "guesses_for_bound": bound.made,
        "guesses_for_bound_correct": bound.correct,
        "steps": claim.steps,
    }


def decide(figures: dict[str, Figure], *, confidence: float) -> Verdict:
    """Return the verdict that the p-value of the claim gives."""
    p_value = figures["p_value"]
    return "violated" if isinstance(p_value, float) and p_value <= 1 - confidence else "holds"


def describe_verdict(figures: dict[str, Figure], verdict: Verdict, *, confidence: float) -> str:
    """Say in plain words what the guesses came to."""
    name = "guesses" if verdict == "violated" else "guesses_for_bound"
    right = f"{figures[f'{name}_correct']} of {figures[name]} guesses"
    bound, claimed = figures["epsilon_lower_bound"], figures["epsilon_claimed"]
    sure = f"{100 * confidence:g} %"
    if verdict == "violated":
        return (
            f"{right} of who was in the data were right; were the claim of epsilon {claimed:.2f}"
            f" true, so many would be right in fewer than {100 * (1 - confidence):.2g} % of runs:"
            " the run leaks more than it claims."
        )
    return (
        f"{right} of who was in the data were right; with {sure} confidence epsilon is at least"
        f" {bound:.2f}, where {claimed:.2f} is claimed: nothing contradicts the claim. {NO_PROOF}"
    )


def _describe(context: AuditContext, claim: Claim, figures: dict[str, Figure]) -> Finding:
    verdict = decide(figures, confidence=context.confidence)
    figures["cost_of_the_audit"] = (
        "none to real records: the scores are of rows that no real record touches; to each canary,"
        " which is made up, the epsilon claimed"
    )
    unit: Unit = claim.plan.unit
    canaries = int(figures["canaries"] or 0)
    return Finding(
        method=METHOD,
        title="Empirical epsilon in one run, by sentinels through the real step",
        threat_model=THREAT_MODEL,
        unit=unit,
        sample_size=canaries,
        confidence=context.confidence,
        seed=context.seed,
        figures=figures,
        verdict=verdict,
        sentence=describe_verdict(figures, verdict, confidence=context.confidence),
    )
