"""What a scenario would run and cost, said without running it."""

from collections.abc import Callable, Mapping
from typing import Final

from rich.console import Group, RenderableType

from fedtrain.config import Config
from fedtrain.data.encoding import CategoryColumn
from fedtrain.data.preparation import Preparation
from fedtrain.plan import (
    RecordPlan,
    build_record_plan,
    build_site_plan,
    compute_mean_noise,
    compute_planned_cost,
    compute_planned_site_cost,
    compute_statistics_cost,
    sends_metrics,
)
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.privacy.site_noise import SitePlan
from fedtrain.report.privacy import NO_KEYS, NO_PRIVACY, UNCOVERED
from fedtrain.report.tables import (
    format_bytes,
    format_count,
    format_epsilon,
    make_facts,
    make_table,
)
from fedtrain.secagg.policy import compute_default_threshold
from fedtrain.training_vector import TrainingVector

from .opening import Opened

Compute = Callable[[int], PrivacyCost | None]
_SHOWN_ROUNDS = 6
_MANY_CATEGORIES: Final = 30
# Noise of a mean update, as a share of the clip on every coordinate, from which it is warned of.
SWAMPED: Final = 0.05
START_NOT_COVERED: Final = "whose own training data no guarantee of this run covers"


def render_check(opened: Opened) -> RenderableType:
    """Return what would run, as tables for a person."""
    config = opened.config
    if config.statistics is not None:
        return _render_question(opened)
    parts: list[RenderableType] = [make_facts(_describe_run(opened))]
    record, site = build_record_plan(config), build_site_plan(config)
    if record is not None:
        parts.append(_tabulate_records(config, record))
    if site is not None:
        parts.append(_tabulate_sites(config, site))
    if record is None and site is None:
        parts.append(NO_PRIVACY[config.secure_aggregation.mode])
    elif sends_metrics(config):
        parts.append(f"\nNot covered: {UNCOVERED}.")
    else:
        parts.append("\nMetrics are suppressed: no site sends a loss or an accuracy.")
    return Group(*parts)


def _render_question(opened: Opened) -> RenderableType:
    """Say what a run that trains nothing would ask, and what it would cost a record."""
    config, cost = opened.config, compute_statistics_cost(opened.config)
    facts = [
        ("scenario", config.run.name),
        ("data", config.data.source),
        ("sites", f"{opened.sites} ({config.partition.scheme}), all are asked"),
        ("asks for", "statistics, trains nothing"),
        ("secure sum", _describe_secure_sum(config, opened.sites)),
    ]
    text = "No differential privacy: the sum has no noise, which few sites allow."
    if cost is not None:
        text = (
            f"A record pays epsilon {format_epsilon(cost.epsilon)} at delta {cost.delta:g}"
            f" ({cost.neighbouring_relation}), once."
        )
    return Group(make_facts(facts), text)


def _describe_sent(config: Config, size: int, cohort: int) -> str:
    down, few = 4 * size * cohort, config.compression
    if few is None or (few.update_bits, few.keep_share) == (None, None):
        return f"{format_bytes(down)} down and as much up"
    encoding = TrainingVector(config, size=size, cohort=cohort).encoding
    up = encoding.dtype.itemsize * encoding.length * cohort
    return f"{format_bytes(down)} down, {format_bytes(up)} up"


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
    facts = [
        ("scenario", config.run.name),
        ("data", f"{config.data.source}, {_describe_task(preparation)}"),
        *_describe_columns(preparation),
        ("sites", f"{opened.sites} ({config.partition.scheme}), {cohort_text}"),
        ("model", f"{config.model.name}, {size:,} parameters, input {preparation.input_shape}"),
        ("strategy", f"{federation.strategy}, {federation.rounds} rounds, {work} a site and round"),
        ("secure sum", _describe_secure_sum(config, cohort)),
        ("sent a round", _describe_sent(config, size, cohort)),
    ]
    if config.model.start_from is not None:
        place = 1 + [name for name, _ in facts].index("model")
        facts.insert(place, ("starts from", f"{config.model.start_from}, {START_NOT_COVERED}"))
    return facts


def _describe_secure_sum(config: Config, cohort: int) -> str:
    section = config.secure_aggregation
    if section.mode == "off":
        return "off: the coordinator would see every update"
    threshold = section.threshold or compute_default_threshold(cohort)
    return f"{section.mode}, {threshold} of {cohort} sites needed"


def _tabulate_records(config: Config, plan: RecordPlan) -> RenderableType:
    privacy = config.privacy
    return Group(
        f"\nWhat a site pays, by the rounds that it takes part in: {plan.unit}-level privacy, delta"
        f" {privacy.target_delta:g}, {privacy.neighbouring_relation}, noise multiplier"
        f" {plan.noise_multiplier:g}, clip {plan.max_grad_norm:g}.",
        _tabulate(config, {"epsilon": lambda rounds: compute_planned_cost(config, rounds)}),
    )


def _tabulate_sites(config: Config, plan: SitePlan) -> RenderableType:
    """Say what a site's guarantee costs, and how much noise it puts on the model."""
    clip = f"{plan.max_update_norm:g}"
    if plan.bit_noise_multiplier is not None:
        clip = f"adaptive, from {plan.first_update_norm:g}, at most {clip}"
    columns: dict[str, Compute] = {"epsilon": lambda n: compute_planned_site_cost(config, n)}
    if plan.samples:
        columns["to the coordinator, at most"] = lambda n: compute_planned_site_cost(
            config, n, outside=False
        )
    title = (
        "\nWhat is paid for a whole site, by the rounds that"
        f" {'are run' if plan.samples else 'it joins'}: delta"
        f" {config.privacy.site.target_delta:g}, {config.privacy.neighbouring_relation}, noise"
        f" multiplier {plan.noise_multiplier:g}, clip {clip}."
    )
    parts = [title, _tabulate(config, columns), _describe_noise(config, plan)]
    if config.secure_aggregation.mode == "arithmetic":
        parts.append(f"\n{NO_KEYS}")
    return Group(*parts)


def _describe_noise(config: Config, plan: SitePlan) -> str:
    """Say how large the noise of a round's mean update is beside the clip."""
    relative = compute_mean_noise(config, plan)
    text = (
        f"\nNoise on every coordinate of a round's mean update: {relative:.2g} of the clip, over"
        f" {plan.divisor:g} sites a round."
    )
    if relative > SWAMPED:
        text += (
            " That swamps the update: a whole site can be hidden among hundreds, not among"
            f" {plan.divisor:g}. Take more sites, or privacy.unit = 'record'."
        )
    return text


def _tabulate(config: Config, columns: Mapping[str, Compute]) -> RenderableType:
    """Return a table of epsilons after some rounds, a column for each that there is."""
    rounds = config.federation.rounds
    shown = sorted({max(1, rounds * i // _SHOWN_ROUNDS) for i in range(_SHOWN_ROUNDS + 1)})
    rows = []
    for number in shown:
        costs = [compute(number) for compute in columns.values()]
        spent = [format_epsilon(None if cost is None else cost.epsilon) for cost in costs]
        rows.append([str(number), *spent])
    return make_table(["rounds", *columns], rows)


def _describe_columns(preparation: Preparation) -> list[tuple[str, str]]:
    """Say what a table's columns are taken for, and which looks like a name or a date."""
    columns = preparation.columns or ()
    if not columns:
        return []
    choices = [column for column in columns if isinstance(column, CategoryColumn)]
    text = f"{len(columns) - len(choices)} of numbers, {len(choices)} of categories"
    for column in choices:
        if len(column.categories) > _MANY_CATEGORIES:
            text += (
                f"; {column.name} has {len(column.categories)} categories, an input each: where"
                " it is a name or a date, leave it out of data.columns"
            )
    return [("columns", text)]


def _describe_task(preparation: Preparation) -> str:
    """Say what is predicted: classes, or the task and its outputs."""
    names = format_count(len(preparation.label_names), "output")
    if preparation.task is None:
        count = len(preparation.label_names)
        return f"{count} class" if count == 1 else f"{count} classes"
    return preparation.task if preparation.task == "anomaly" else f"{preparation.task}, {names}"
