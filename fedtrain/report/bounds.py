"""The guarantees of a run as a report states them, and the same in other terms.

Everything follows from the config, the ledger's rounds and nothing else.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final

from fedtrain.config import Config
from fedtrain.plan import (
    VOID_SHARE,
    build_record_plan,
    build_site_plan,
    compute_planned_cost,
    compute_planned_site_cost,
)
from fedtrain.privacy.accounting import PrivacyCost, compute_cost
from fedtrain.privacy.events import Event
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.privacy.site_noise import SitePlan
from fedtrain.privacy.trade_off import Profile, bound_posterior, compute_profile
from fedtrain.report.document import Attack, Belief, Guarantee, Meaning, Mechanism
from fedtrain.report.figures import format_percent, format_rate, round_up

RATES: Final = (0.001, 0.01, 0.1)
PRIORS: Final = (0.01, 0.1, 0.5)
CURVE: Final = (
    *(0.0, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075),
    *(tenth / 20 for tenth in range(2, 20)),
    1.0,
)
EVERYONE: Final = "the coordinator, every other site, and whoever has the model"
OUTSIDE: Final = "whoever sees the models, and not which sites took part"
COORDINATOR: Final = "the coordinator and sites of the same cohorts"
SUMS: Final = "the coordinator, other sites and whoever has the model, as far as secure sums hold"
NAMES: Final = {
    "record": "one record at a site",
    "person": "one person, with all their records at a site",
    "site": "one whole site, with all its records",
}


@dataclass(frozen=True)
class Spent:
    """One guarantee of a run as it stands.

    Attributes:
        prefix: Of its keys in `metrics.jsonl`.
        against: Whom it holds against.
        event: What happened to one unit at the site that took part most; None where nothing did.
        cost: What that costs.
        slack: What delta is kept for besides the event.
    """

    prefix: str
    against: str
    event: Event
    cost: PrivacyCost
    slack: float = 0.0


def list_spent(config: Config, *, joined: int, done: int) -> list[Spent]:
    """Return a run's guarantees so far, that of the config's first unit first.

    Args:
        config: The resolved config.
        joined: Rounds of the site that took part most.
        done: Rounds of the run.
    """
    found = []
    record, cost = build_record_plan(config), compute_planned_cost(config, joined)
    if record is not None and cost is not None:
        found.append(Spent("", EVERYONE, record.to_event(joined), cost))
    site = build_site_plan(config)
    if site is not None:
        found += _list_site(config, site, joined=joined, done=done, first=not found)
    return found


def count_joined(ledger: list[LedgerEntry]) -> int:
    """Return the rounds of the site that took part most."""
    return max(Counter(entry.site for entry in ledger).values(), default=0)


def build_guarantee(config: Config, spent: Spent) -> Guarantee:
    """Return a guarantee's record; a second accountant is asked beside the first."""
    cost = spent.cost
    check = compute_cost(
        [spent.event],
        delta=cost.delta - spent.slack,
        neighbouring_relation=cost.neighbouring_relation,
        accountant="rdp",
    )
    return Guarantee(
        prefix=spent.prefix,
        unit=cost.unit,
        name=NAMES[cost.unit],
        against=spent.against,
        epsilon=_to_finite(cost.epsilon),
        delta=cost.delta,
        neighbouring_relation=cost.neighbouring_relation,
        accountant=cost.accountant,
        discretisation=cost.discretisation,
        check_epsilon=_to_finite(check.epsilon),
        mechanism=_describe_mechanism(config, spent),
    )


def build_meaning(spent: Spent) -> Meaning | None:
    """Return a guarantee in other terms; None where it promises nothing."""
    cost = spent.cost
    if not math.isfinite(cost.epsilon):
        return None
    profile = compute_profile(
        [spent.event], neighbouring_relation=cost.neighbouring_relation, slack=spent.slack
    )
    # The stated point is one of the profile's, so that no other figure is weaker than it.
    stated = (cost.epsilon, cost.delta)
    profile = Profile(tuple(sorted({*profile.points, stated}, key=lambda point: point[1])))
    mu = profile.fit_gaussian(cost.delta)
    attacks = tuple(_bound_attack(profile, rate) for rate in RATES)
    beliefs = tuple(
        Belief(prior=prior, posterior=round_up(bound_posterior(cost.epsilon, prior=prior)))
        for prior in PRIORS
    )
    return Meaning(
        prefix=spent.prefix,
        mu=round_up(mu) if math.isfinite(mu) else None,
        mu_delta=cost.delta,
        advantage=round_up(profile.bound_advantage()),
        attacks=attacks,
        beliefs=beliefs,
        curve=tuple(_bound_attack(profile, rate) for rate in CURVE),
        sentences=_describe_meaning(cost, attacks, beliefs, advantage=profile.bound_advantage()),
    )


def _list_site(
    config: Config, site: SitePlan, *, joined: int, done: int, first: bool
) -> list[Spent]:
    prefix, target = "" if first else "site_", config.privacy.site.target_delta
    rounds = done if site.samples else joined
    cost = compute_planned_site_cost(config, rounds)
    against = OUTSIDE if site.samples else SUMS
    slack = target * VOID_SHARE if config.federation.site_sample_rate is not None else 0.0
    found = [Spent(prefix, against, site.to_event(rounds, outside=True), _take(cost), slack)]
    if site.samples:
        inside = compute_planned_site_cost(config, joined, outside=False)
        event = site.to_event(joined, outside=False)
        found.append(Spent("coordinator_", COORDINATOR, event, _take(inside), slack))
    return found


def _take(cost: PrivacyCost | None) -> PrivacyCost:
    if cost is None:
        raise ValueError("a site plan has a cost")
    return cost


def _describe_mechanism(config: Config, spent: Spent) -> Mechanism:
    if spent.cost.unit != "site":
        plan = build_record_plan(config)
        if plan is None:
            raise ValueError("a record's guarantee has a plan")
        return Mechanism(
            name="Poisson-sampled Gaussian (DP-SGD)",
            noise_multiplier=plan.noise_multiplier,
            clip=plan.max_grad_norm,
            sample_rate=plan.sample_rate,
            steps=int(getattr(spent.event, "steps", 0)),
            divisor=plan.expected_batch_size,
        )
    site = build_site_plan(config)
    if site is None:
        raise ValueError("a site's guarantee has a plan")
    return Mechanism(
        name="Discrete Gaussian, in shares inside the secure sum",
        noise_multiplier=site.noise_multiplier,
        clip=site.max_update_norm,
        sample_rate=float(getattr(spent.event, "sample_rate", 1.0)),
        steps=int(getattr(spent.event, "steps", 0)),
        divisor=site.divisor,
    )


def _bound_attack(profile: Profile, rate: float) -> Attack:
    bound = profile.bound_true_positive_rate(rate)
    return Attack(false_positive_rate=rate, true_positive_rate=min(1.0, round_up(bound)))


def _describe_meaning(
    cost: PrivacyCost, attacks: tuple[Attack, ...], beliefs: tuple[Belief, ...], *, advantage: float
) -> tuple[str, ...]:
    one = attacks[RATES.index(0.01)]
    even = beliefs[PRIORS.index(0.1)]
    who = {"record": "records", "person": "persons", "site": "sites"}[cost.unit]
    if cost.neighbouring_relation == "add_remove":
        found = (
            f"Whoever attacks in the best possible way, and accuses {format_rate(0.01)} of the"
            f" {who} that were not in the data wrongly, finds at most"
            f" {format_percent(one.true_positive_rate)} of those that were."
        )
    else:
        found = (
            f"Whoever knows all but one of the {who} and has two candidates for it, and names the"
            f" first wrongly in {format_rate(0.01)} of cases, names it rightly in at most"
            f" {format_percent(one.true_positive_rate)}."
        )
    return (
        found,
        (
            "The best attack's advantage, the share that it finds less the share that it accuses"
            f" wrongly, is at most {format_percent(advantage)}, whatever it allows itself; that of"
            " guessing is 0 %."
        ),
        (
            f"A suspicion of {format_rate(even.prior)} that one was in the data can become at most"
            f" {format_percent(even.posterior)} (but for a chance of delta, {cost.delta:g})."
        ),
    )


def _to_finite(epsilon: float) -> float | None:
    return round_up(epsilon) if math.isfinite(epsilon) else None
