"""What a scenario would run and cost, said without running it."""

from rich.console import Group, RenderableType

from fedtrain.config import Config
from fedtrain.plan import build_record_plan, compute_planned_cost
from fedtrain.report.privacy import NO_PRIVACY
from fedtrain.report.tables import (
    format_bytes,
    format_count,
    format_epsilon,
    make_facts,
    make_table,
)
from fedtrain.secagg.policy import compute_default_threshold

from .opening import Opened

_SHOWN_ROUNDS = 6


def render_check(opened: Opened) -> RenderableType:
    """Return what would run, as tables for a person."""
    config = opened.config
    parts: list[RenderableType] = [make_facts(_describe_run(opened))]
    if build_record_plan(config) is None:
        parts.append(NO_PRIVACY[config.secure_aggregation.mode])
    else:
        parts.append(_tabulate_epsilon(config))
    return Group(*parts)


def _describe_run(opened: Opened) -> list[tuple[str, str]]:
    config = opened.config
    training, federation = config.training, config.federation
    preparation, size = opened.preparation, opened.size
    cohort = federation.sites_per_round or opened.sites
    work = (
        format_count(training.local_steps, "step")
        if training.local_steps
        else f"{format_count(training.local_epochs, 'epoch')} of batches of {training.batch_size}"
    )
    cohort_text = (
        f"each with probability {federation.site_sample_rate:g}"
        if federation.site_sample_rate is not None
        else f"{cohort} a round"
    )
    return [
        ("scenario", config.run.name),
        ("data", f"{config.data.source}, {len(preparation.label_names)} classes"),
        ("sites", f"{opened.sites} ({config.partition.scheme}), {cohort_text}"),
        ("model", f"{config.model.name}, {size:,} parameters, input {preparation.input_shape}"),
        ("strategy", f"{federation.strategy}, {federation.rounds} rounds, {work} a site and round"),
        ("secure sum", _describe_secure_sum(config, cohort)),
        ("sent a round", f"{format_bytes(4 * size * cohort)} down and as much up"),
    ]


def _describe_secure_sum(config: Config, cohort: int) -> str:
    section = config.secure_aggregation
    if section.mode == "off":
        return "off: the coordinator would see every update"
    threshold = section.threshold or compute_default_threshold(cohort)
    return f"{section.mode}, {threshold} of {cohort} sites needed"


def _tabulate_epsilon(config: Config) -> RenderableType:
    rounds, privacy = config.federation.rounds, config.privacy
    shown = sorted({max(1, rounds * i // _SHOWN_ROUNDS) for i in range(_SHOWN_ROUNDS + 1)})
    costs = [(n, compute_planned_cost(config, n)) for n in shown]
    table = make_table(
        ("rounds", "epsilon"),
        [(str(n), format_epsilon(cost.epsilon)) for n, cost in costs if cost is not None],
    )
    sentence = (
        f"\nWhat a site pays, by the rounds that it takes part in: record-level privacy, delta"
        f" {privacy.target_delta:g}, {privacy.neighbouring_relation}, noise multiplier"
        f" {privacy.noise_multiplier:g}, clip {privacy.max_grad_norm:g}."
    )
    return Group(sentence, table)
