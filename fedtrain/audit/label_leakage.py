"""The audit method "label-leakage": each site's label distribution, from four views of its step."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedtrain.audit.findings import Figure, Finding, Verdict
from fedtrain.audit.leakage import (
    Knowledge,
    compute_clip_scale,
    compute_distance,
    count_shares,
    estimate_label_shares,
)
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.shares_picture import Estimate, draw_shares
from fedtrain.audit.victims import MAX_COHORT, MIN_COHORT, Victims, open_victims
from fedtrain.audit.views import SETTINGS, list_protections, make_reference_plan, make_views
from fedtrain.config import Config
from fedtrain.data.shards import Split
from fedtrain.plan import RecordPlan, build_record_plan
from fedtrain.seeds import derive_seed

Floats = NDArray[np.float64]

METHOD: Final = "label-leakage"
PICTURE: Final = "label-leakage.png"
TRIALS: Final = 10  # of each site, with other noise and masks
QUICK_TRIALS: Final = 3
MOST_RECORDS: Final = 1_000  # of a site's step


def audit_label_leakage(context: AuditContext) -> list[Finding]:
    """Estimate the label distribution of every site of a cohort from one step on all its records.

    Args:
        context: The run.

    Returns:
        One finding, with a picture.

    Raises:
        FedtrainError: Model or data cannot be read, or the model's last layer tells nothing.
    """
    torch.set_num_threads(1)
    victims = open_victims(context)
    sites = min(max(len(victims.splits), MIN_COHORT), MAX_COHORT)
    trials = QUICK_TRIALS if context.quick else TRIALS
    errors: dict[str, list[float]] = {name: [] for name in (*SETTINGS, "guess")}
    first: list[Estimate] = []
    for site in range(min(sites, len(victims.splits))):
        for trial in range(trials):
            truth, found = _estimate(context, victims, site=site, sites=sites, trial=trial)
            for name, shares in found.items():
                errors[name].append(compute_distance(shares, truth))
            if not trial:
                first.append(Estimate(truth, found))
    draw_shares(first, context.out / PICTURE, classes=victims.classes)
    return [_describe(context, errors)]


def _estimate(
    context: AuditContext, victims: Victims, *, site: int, sites: int, trial: int
) -> tuple[Floats, dict[str, Floats]]:
    """Return a site's label shares and what each view makes of them."""
    batches = [_cut(victims.splits[(site + step) % len(victims.splits)]) for step in range(sites)]
    plan = build_record_plan(context.config) or make_reference_plan(len(batches[0]))
    views = make_views(
        victims.model,
        batches,
        plan=plan,
        section=context.config.secure_aggregation,
        seed=derive_seed(context.seed, METHOD, site * TRIALS + trial),
    )
    knowledge = _get_knowledge(victims, site)
    found: dict[str, Floats] = {}
    for setting in SETTINGS:
        scale = 1.0
        if setting == "dp":
            clip = compute_clip_scale(victims.model, knowledge, max_grad_norm=plan.max_grad_norm)
            scale = clip * plan.expected_batch_size / len(batches[0])
        found[setting] = estimate_label_shares(
            victims.model, views.gradients[setting], knowledge, scale=scale
        )
    truth = count_shares(batches[0].labels, victims.classes)
    found["guess"] = np.full(victims.classes, 1 / victims.classes)
    return truth, found


def _cut(split: Split) -> Split:
    return Split(split.features[:MOST_RECORDS], split.labels[:MOST_RECORDS])


def _get_knowledge(victims: Victims, site: int) -> Knowledge:
    """Return records of another site: what an attacker may have of the same kind."""
    other = victims.splits[(site + 1) % len(victims.splits)]
    return Knowledge(torch.from_numpy(other.features), torch.from_numpy(other.labels))


def _describe(context: AuditContext, errors: Mapping[str, Sequence[float]]) -> Finding:
    means = {name: float(np.mean(found)) for name, found in errors.items()}
    figures: dict[str, Figure] = {f"{name}_error": mean for name, mean in means.items()}
    figures["noise_multiplier"] = _get_plan(context.config).noise_multiplier
    figures["protections"] = ", ".join(list_protections(context.config)) or "none"
    return Finding(
        method=METHOD,
        title="Label distribution of a site",
        threat_model=(
            "A coordinator that has the model and records of its own, and sees one step of one site"
            " on all of its records; masked where secure aggregation is on."
        ),
        unit="site",
        sample_size=len(errors["raw"]),
        confidence=None,
        seed=context.seed,
        figures=figures,
        verdict=_judge(means, errors),
        sentence=_say(means, context.config),
        pictures=(PICTURE,),
    )


def _get_plan(config: Config) -> RecordPlan:
    return build_record_plan(config) or make_reference_plan(1)


def _judge(means: Mapping[str, float], errors: Mapping[str, Sequence[float]]) -> Verdict:
    """A masked vector must tell no more than a guess; nothing else here has a claim."""
    gain = np.asarray(errors["guess"]) - np.asarray(errors["masked"])
    noise = float(gain.std()) / max(1.0, len(gain) ** 0.5)
    return "violated" if means["masked"] < means["guess"] - 4 * max(noise, 0.01) else "informative"


def _say(means: Mapping[str, float], config: Config) -> str:
    text = (
        f"From a bare step the labels' shares at a site are told within {means['raw']:.0%} (total"
        f" variation; a blind guess is {means['guess']:.0%} off)"
    )
    own = list_protections(config)
    if "sum" in own:
        text += f"; secure aggregation shows only the cohort's, {means['sum']:.0%} off"
    if "dp" in own:
        text += f"; the noise that hides a record leaves {means['dp']:.0%}, and is not meant to"
        text += " hide a site's shares"
    return text + "."
