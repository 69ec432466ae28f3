"""The audit method "canary-sites": an estimate of a site's epsilon, with the noise and without."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from fedtrain.audit.canary_picture import Panel, draw_cosines
from fedtrain.audit.findings import Figure, Finding, Verdict
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.one_shot import MAX_EPSILON, Fit, compute_epsilon_between, fit_cosines
from fedtrain.plan import compute_planned_site_cost
from fedtrain.privacy.accounting import PrivacyCost

from .canary_sites import Cosines, Federation, open_federation, watch_many

METHOD: Final = "canary-sites"
PICTURE: Final = "canary-sites.png"
CANARIES: Final = 400
QUICK_CANARIES: Final = 60
MAX_ROUNDS: Final = 30
# Without a claim there is nothing to compare with: a look is enough.
FEW_ROUNDS: Final = 5
FEW_CANARIES: Final = 24
# Spread of the estimate over repeated audits, as a share of it, beyond which a claim is doubted.
DOUBT: Final = 1.5
_DELTA: Final = 1e-5  # where the run claims nothing


@dataclass(frozen=True)
class Estimate:
    """What canaries tell.

    Attributes:
        final: Epsilon from the final model.
        rounds: Epsilon from the largest cosine over all rounds.
        absent: Fit of directions that nobody sent, on the final model.
        present: Fit of canaries, on the final model.
    """

    final: float
    rounds: float
    absent: Fit
    present: Fit


def audit_canary_sites(context: AuditContext) -> list[Finding]:
    """Put canary sites into federations like a run's and estimate what its sums tell of them.

    Args:
        context: The run; of one with many rounds the first `MAX_ROUNDS`.

    Returns:
        One finding, with a picture: an estimate, so that it is never `violated`, but
        `inconclusive` where it is well above the claim.

    Raises:
        FedtrainError: Data or model cannot be used.
    """
    torch.set_num_threads(1)
    claims = context.config.privacy.covers_sites
    rounds = min(MAX_ROUNDS if claims else FEW_ROUNDS, context.config.federation.rounds)
    federation = open_federation(
        context.config.model_copy(
            update={"federation": context.config.federation.model_copy(update={"rounds": rounds})}
        )
    )
    count = QUICK_CANARIES if context.quick else CANARIES
    count = count if claims else FEW_CANARIES
    cost = compute_planned_site_cost(federation.config, rounds, outside=False)
    delta = _DELTA if cost is None else cost.delta
    bare = watch_many(federation, count, seed=context.seed, noised=False)
    watched = {"Without noise": bare}
    if cost is not None:
        watched["As it was run"] = watch_many(federation, count, seed=context.seed)
    estimates = {name: estimate(one, federation, delta=delta) for name, one in watched.items()}
    panels = [
        Panel(name, one.final, one.final_absent, _label(estimates[name].final))
        for name, one in watched.items()
    ]
    draw_cosines(panels, context.out / PICTURE)
    return [_describe(context, estimates, cost=cost, rounds=rounds, count=len(bare.final))]


def estimate(cosines: Cosines, federation: Federation, *, delta: float) -> Estimate:
    """Estimate epsilon from cosines.

    Args:
        cosines: Of canaries and of directions that nobody sent.
        federation: Whose model has d parameters: the null of a single vector is N(0, 1/d).
        delta: Of epsilon.
    """
    present, absent = fit_cosines(cosines.final), Fit(0.0, len(federation.start) ** -0.5)
    return Estimate(
        compute_epsilon_between(present, absent, delta=delta),
        compute_epsilon_between(
            fit_cosines(cosines.rounds), fit_cosines(cosines.rounds_absent), delta=delta
        ),
        absent,
        present,
    )


def _label(epsilon: float) -> str:
    above = epsilon >= MAX_EPSILON * 0.999
    return (
        f"estimated epsilon above {MAX_EPSILON:g}" if above else f"estimated epsilon {epsilon:.1f}"
    )


def _describe(
    context: AuditContext,
    estimates: Mapping[str, Estimate],
    *,
    cost: PrivacyCost | None,
    rounds: int,
    count: int,
) -> Finding:
    bare, noised = estimates["Without noise"], estimates.get("As it was run")
    figures: dict[str, Figure] = {"canaries": count, "rounds": rounds}
    figures |= _list_figures("unprotected_", bare)
    if noised is not None and cost is not None:
        figures |= _list_figures("", noised)
    figures["epsilon_claimed"] = None if cost is None else cost.epsilon
    figures["delta"] = _DELTA if cost is None else cost.delta
    figures["neighbouring_relation"] = None if cost is None else cost.neighbouring_relation
    return Finding(
        method=METHOD,
        title="One-shot estimate of a site's epsilon, by canary sites",
        threat_model=(
            "Whoever has the start and the final model, or the sums of all rounds, and chooses the"
            " updates of a site; sums are over the fewest survivors that the claim counts on."
        ),
        unit="site",
        sample_size=count,
        confidence=None,
        seed=context.seed,
        figures=figures,
        verdict=_judge(noised, cost),
        sentence=_say(bare, noised, cost=cost, count=count),
        pictures=(PICTURE,),
    )


def _list_figures(prefix: str, found: Estimate) -> dict[str, Figure]:
    return {
        f"{prefix}epsilon_estimate_final_model": found.final,
        f"{prefix}epsilon_estimate_all_rounds": found.rounds,
        f"{prefix}cosine_mean": found.present.mean,
        f"{prefix}cosine_stddev": found.present.stddev,
    }


def _judge(noised: Estimate | None, cost: PrivacyCost | None) -> Verdict:
    if noised is None or cost is None:
        return "informative"
    return "inconclusive" if noised.final > DOUBT * cost.epsilon else "holds"


def _say(bare: Estimate, noised: Estimate | None, *, cost: PrivacyCost | None, count: int) -> str:
    if noised is None or cost is None:
        return (
            f"{count} canary sites are told from absent ones by the sums' model alone"
            f" ({_label(bare.final)}): this run protects no whole site."
        )
    text = (
        f"By {count} canary sites epsilon is estimated at {noised.final:.1f} from the final model,"
        f" where {cost.epsilon:.1f} is claimed; without the noise it would be {bare.final:.1f}. An"
        " estimate is no bound, and no proof of privacy."
    )
    if noised.final > DOUBT * cost.epsilon:
        text += " It is well above the claim: look at the noise that is really added."
    return text
