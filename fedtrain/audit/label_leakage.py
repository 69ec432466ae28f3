"""The audit method "label-leakage": each site's label distribution, from four views of its step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtrain.audit.findings import Figure, Finding, Verdict
from fedtrain.audit.leakage import (
    Knowledge,
    compute_clip_scale,
    compute_distance,
    count_shares,
    estimate_label_shares,
    predict_shares,
)
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.shares_picture import Estimate, draw_shares
from fedtrain.audit.victims import MAX_COHORT, MIN_COHORT, Victims, open_victims
from fedtrain.audit.views import (
    SETTINGS,
    compute_raw,
    list_protections,
    make_reference_plan,
    make_views,
)
from fedtrain.config import Config
from fedtrain.data.shards import Split
from fedtrain.plan import RecordPlan, build_record_plan
from fedtrain.seeds import derive_seed

Floats = NDArray[np.float64]

METHOD: Final = "label-leakage"
PICTURE: Final = "label-leakage.png"
TRIALS: Final = 10  # of each site, with other noise and masks
QUICK_TRIALS: Final = 3
MOST_RECORDS: Final = 1_000  # of a site's step, where audit.label_records says nothing else


@dataclass(frozen=True)
class _Site:
    """A site of the cohort, and what is the same in every trial of it.

    Attributes:
        batch: The records of its step.
        raw: Its bare gradient, `(d,)`.
        predicted: The attacker's mean prediction, `(c,)`.
        clip_scale: What the attacker takes the clip to shorten gradients by.
    """

    batch: Split
    raw: Tensor
    predicted: Floats
    clip_scale: float


def audit_label_leakage(context: AuditContext) -> list[Finding]:
    """Estimate the label distribution of every site of a cohort from one step on its records.

    Args:
        context: The run.

    Returns:
        One finding, with a picture.

    Raises:
        FedtrainError: Model or data cannot be read, or the model's last layer tells nothing.
    """
    torch.set_num_threads(1)
    victims = open_victims(context)
    cohort = min(max(len(victims.splits), MIN_COHORT), MAX_COHORT)
    most, count = context.label_records or MOST_RECORDS, len(victims.splits)
    sites = [_look_at(context, victims, i, most=most) for i in range(min(2 * MAX_COHORT, count))]
    errors: dict[str, list[float]] = {name: [] for name in (*SETTINGS, "guess")}
    first: list[Estimate] = []
    for site in range(min(cohort, count)):
        members = [sites[(site + step) % count] for step in range(cohort)]
        truth = count_shares(members[0].batch.labels, victims.classes)
        for trial in range(QUICK_TRIALS if context.quick else TRIALS):
            found = _estimate(context, victims, members, seed=site * TRIALS + trial)
            for name, shares in found.items():
                errors[name].append(compute_distance(shares, truth))
            if not trial:
                first.append(Estimate(truth, found))
    draw_shares(first, context.out / PICTURE, classes=victims.classes)
    is_cut = any(len(split) > most for split in victims.splits)
    return [_describe(context, errors, sample=most if is_cut else None)]


def _look_at(context: AuditContext, victims: Victims, site: int, *, most: int) -> _Site:
    """Return a site's step, and what the records of another site tell an attacker."""
    split, other = victims.splits[site], victims.splits[(site + 1) % len(victims.splits)]
    batch = Split(split.features[:most], split.labels[:most])
    knowledge = Knowledge(torch.from_numpy(other.features), torch.from_numpy(other.labels))
    clip = _get_plan(context.config).max_grad_norm
    return _Site(
        batch,
        compute_raw(victims.model, batch),
        predict_shares(victims.model, knowledge),
        compute_clip_scale(victims.model, knowledge, max_grad_norm=clip),
    )


def _estimate(
    context: AuditContext, victims: Victims, members: Sequence[_Site], *, seed: int
) -> dict[str, Floats]:
    """Return what each view of the first member's step makes of its label shares."""
    own = members[0]
    plan = build_record_plan(context.config) or make_reference_plan(len(own.batch))
    views = make_views(
        victims.model,
        [member.batch for member in members],
        plan=plan,
        section=context.config.secure_aggregation,
        seed=derive_seed(context.seed, METHOD, seed),
        raw=[member.raw for member in members],
    )
    found: dict[str, Floats] = {}
    for setting in SETTINGS:
        scale = 1.0
        if setting == "dp":
            scale = own.clip_scale * plan.expected_batch_size / len(own.batch)
        found[setting] = estimate_label_shares(
            victims.model, views.gradients[setting], own.predicted, scale=scale
        )
    found["guess"] = np.full(victims.classes, 1 / victims.classes)
    return found


def _describe(
    context: AuditContext, errors: Mapping[str, Sequence[float]], *, sample: int | None
) -> Finding:
    """Return the finding; `sample` is how many of a site's records were in its step, if not all."""
    means = {name: float(np.mean(found)) for name, found in errors.items()}
    figures: dict[str, Figure] = {f"{name}_error": mean for name, mean in means.items()}
    figures["noise_multiplier"] = _get_plan(context.config).noise_multiplier
    figures["protections"] = ", ".join(list_protections(context.config)) or "none"
    if sample is not None:
        figures["records_of_a_site_at_most"] = sample
    which = "all of its records" if sample is None else f"at most {sample:,} of its records"
    return Finding(
        method=METHOD,
        title="Label distribution of a site",
        threat_model=(
            "A coordinator that has the model and records of its own, and sees one step of one site"
            f" on {which}; masked where secure aggregation is on."
        ),
        unit="site",
        sample_size=len(errors["raw"]),
        confidence=None,
        seed=context.seed,
        figures=figures,
        verdict=_judge(means, errors),
        sentence=_say(means, context.config, sample),
        pictures=(PICTURE,),
    )


def _get_plan(config: Config) -> RecordPlan:
    return build_record_plan(config) or make_reference_plan(1)


def _judge(means: Mapping[str, float], errors: Mapping[str, Sequence[float]]) -> Verdict:
    """A masked vector must tell no more than a guess; nothing else here has a claim."""
    gain = np.asarray(errors["guess"]) - np.asarray(errors["masked"])
    noise = float(gain.std()) / max(1.0, len(gain) ** 0.5)
    return "violated" if means["masked"] < means["guess"] - 4 * max(noise, 0.01) else "informative"


def _say(means: Mapping[str, float], config: Config, sample: int | None) -> str:
    step = "a bare step" if sample is None else f"a bare step on at most {sample:,} records"
    text = (
        f"From {step} the labels' shares at a site are told within {means['raw']:.0%} (total"
        f" variation; a blind guess is {means['guess']:.0%} off)"
    )
    own = list_protections(config)
    if "sum" in own:
        text += f"; secure aggregation shows only the cohort's, {means['sum']:.0%} off"
    if "dp" in own:
        text += f"; the noise that hides a record leaves {means['dp']:.0%}, and is not meant to"
        text += " hide a site's shares"
    return text + "."
