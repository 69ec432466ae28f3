"""The audit method "membership": shadow federations, three attacks on each, one picture."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.audit.findings import Finding
from fedtrain.audit.membership import score_by_lira, score_by_loss, score_by_rmia
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.roc import Interval, Rates, estimate_rates
from fedtrain.audit.roc_picture import Panel, draw_rocs
from fedtrain.config import Config
from fedtrain.plan import compute_planned_cost, compute_planned_site_cost
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.privacy.attacker import bound_true_positive_rate
from fedtrain.seeds import make_numpy_generator

from .shadows import Shadows, measure_records, run_shadows

FEDERATIONS: Final = 64
QUICK_FEDERATIONS: Final = 12
QUICK_SECONDS: Final = 900.0  # beyond it an audit that is to be quick leaves the method out
PICTURE: Final = "membership.png"
TITLE: Final = "Membership inference (loss, LiRA, RMIA)"
THREAT_MODEL: Final = (
    "Whoever has the final model, the scenario and records of the same kind, and wants to know"
    " whether a given record was trained on."
)
# Verdicts rest on one comparison, chosen beforehand: LiRA's at this rate.
JUDGED_RATE: Final = 0.01
_NAMES: Final = {0.001: "0.1_percent", 0.01: "1_percent"}

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Attack = Callable[[Floats, Shadows], Floats]
ATTACKS: Final[dict[str, Attack]] = {
    "loss": lambda margins, _: score_by_loss(margins),
    "LiRA": lambda margins, shadows: score_by_lira(margins, shadows.margins, shadows.joined),
    "RMIA": lambda margins, shadows: score_by_rmia(margins, shadows.margins, shadows.joined),
}


def audit_membership(context: AuditContext) -> list[Finding]:
    """Attack shadow federations of a run's scenario, with its privacy and without, and the run.

    Args:
        context: The run, of a simulation that has finished.

    Returns:
        One finding. It is `violated` where LiRA finds more members at 1 % of non-members accused
        than the guarantee allows any attack, at the stated confidence.

    Raises:
        FedtrainError: Data or model cannot be read, or a shadow cannot be run.
    """
    count = QUICK_FEDERATIONS if context.quick else FEDERATIONS
    private = context.config.privacy.unit != "none"
    seconds = read_seconds(context.run) * count * (2 if private else 1)
    if context.quick and seconds > QUICK_SECONDS:
        return [_leave_out(context, count, seconds)]
    shadows = run_shadows(context.config, count, seed=context.seed)
    rates = attack_each(shadows, context)
    bare: dict[str, Rates] = {}
    if private:
        plain = run_shadows(context.config, count, seed=context.seed, protected=False)
        bare = attack_each(plain, context)
    own = _attack_run(context, shadows)
    cost = find_cost(context.config)
    draw_rocs(_make_panels(rates, bare, cost), context.out / PICTURE)
    figures = _list_figures("", rates) | _list_figures("unprotected_", bare)
    figures |= _list_figures("run_", own)
    return [_describe(context, shadows, rates=rates, bare=bare, figures=figures, cost=cost)]


def attack_each(shadows: Shadows, context: AuditContext) -> dict[str, Rates]:
    """Return each attack's rates, every federation in turn the target of all others."""
    found = {}
    for name, attack in ATTACKS.items():
        scores = [
            attack(margins, shadows.without(index)) for index, margins in enumerate(shadows.margins)
        ]
        found[name] = _estimate(np.stack(scores), shadows.joined, context, name)
    return found


def find_cost(config: Config) -> PrivacyCost | None:
    """Return the smallest epsilon that the run claims for a record, alone or as part of a unit."""
    costs = [compute_planned_cost(config), compute_planned_site_cost(config)]
    return min((cost for cost in costs if cost is not None), key=lambda c: c.epsilon, default=None)


def read_seconds(run: Path) -> float:
    """Return how long a run's rounds took."""
    return float(json.loads((run / "state.json").read_text(encoding="utf-8"))["seconds"])


def _estimate(scores: Floats, members: Bools, context: AuditContext, name: str) -> Rates:
    generator = make_numpy_generator(context.seed, "membership", name)
    return estimate_rates(scores, members, confidence=context.confidence, generator=generator)


def _attack_run(context: AuditContext, shadows: Shadows) -> dict[str, Rates]:
    """Attack the run's own model; nothing where it held no records out."""
    margins, joined = measure_records(context.run, context.config)
    margins, joined = margins[shadows.rows], joined[shadows.rows]
    if joined.all() or not joined.any():
        return {}
    return {
        name: _estimate(attack(margins, shadows)[None], joined[None], context, f"run {name}")
        for name, attack in ATTACKS.items()
    }


def _make_panels(
    rates: Mapping[str, Rates], bare: Mapping[str, Rates], cost: PrivacyCost | None
) -> list[Panel]:
    if cost is None:
        return [Panel("Membership inference without differential privacy", rates)]
    bound = partial(_bound, cost)
    name = f"no attack finds more (epsilon {cost.epsilon:.3g})"
    return [
        Panel("Without differential privacy", bare),
        Panel(f"As it was run: epsilon {cost.epsilon:.3g}", rates, bound, name),
    ]


def _bound(cost: PrivacyCost, rate: float) -> float:
    return bound_true_positive_rate(cost.epsilon, cost.delta, false_positive_rate=rate)


def _list_figures(prefix: str, rates: Mapping[str, Rates]) -> dict[str, float | int | str | None]:
    figures: dict[str, float | int | str | None] = {}
    for name, one in rates.items():
        key = f"{prefix}{name.lower()}"
        figures |= _spread(f"{key}_auc", one.auc)
        for rate, text in _NAMES.items():
            figures |= _spread(f"{key}_found_at_{text}", one.found[rate])
    return figures


def _spread(name: str, interval: Interval) -> dict[str, float | int | str | None]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _describe(
    context: AuditContext,
    shadows: Shadows,
    *,
    rates: Mapping[str, Rates],
    bare: Mapping[str, Rates],
    figures: dict[str, float | int | str | None],
    cost: PrivacyCost | None,
) -> Finding:
    judged = rates["LiRA"].found[JUDGED_RATE]
    bound = None if cost is None else _bound(cost, JUDGED_RATE)
    sentence = (
        f"Where 1 in 100 non-members is accused wrongly, LiRA finds {_percent(judged.value)} of the"
        f" members ({_percent(judged.low)} to {_percent(judged.high)}; guessing finds 1 %)"
    )
    if bare:
        plain = bare["LiRA"].found[JUDGED_RATE]
        sentence += f"; without differential privacy it finds {_percent(plain.value)}"
    sentence += (
        f". Measured on {len(shadows.margins)} federations that were dealt and trained like this"
        " one; what an attack does not find, a better one may."
    )
    if cost is None:
        verdict = "informative"
    else:
        verdict = "violated" if bound is not None and judged.low > bound else "holds"
    return Finding(
        method="membership",
        title=TITLE,
        threat_model=THREAT_MODEL,
        unit="record",
        sample_size=int(shadows.margins.size),
        confidence=context.confidence,
        seed=context.seed,
        figures={
            "federations": len(shadows.margins),
            "records": shadows.margins.shape[1],
            "epsilon_claimed": None if cost is None else cost.epsilon,
            "delta": None if cost is None else cost.delta,
            "neighbouring_relation": None if cost is None else cost.neighbouring_relation,
            "most_found_at_1_percent_by_claim": bound,
            **figures,
        },
        verdict=verdict,  # type: ignore[arg-type]
        sentence=sentence,
        pictures=(PICTURE,),
    )


def _leave_out(context: AuditContext, count: int, seconds: float) -> Finding:
    return Finding(
        method="membership",
        title=TITLE,
        threat_model=THREAT_MODEL,
        unit="record",
        sample_size=0,
        confidence=None,
        seed=context.seed,
        figures={"federations": 0, "federations_needed": count, "seconds_needed": round(seconds)},
        verdict="inconclusive",
        sentence=(
            f"Left out: it takes federations like this one, about {seconds / 60:.0f} minutes of"
            " them, which a quick audit does not spend."
        ),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
