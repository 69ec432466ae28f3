"""What a site does with each kind of message, without secure aggregation."""

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedtrain.aggregation import compute_model_digest
from fedtrain.attackers import choose_attackers, corrupt_records, corrupt_update
from fedtrain.canonical import to_canonical
from fedtrain.config import AttackersSection
from fedtrain.data.schema_faults import MissingColumnError, SchemaFault
from fedtrain.data.shards import Split, take_group
from fedtrain.errors import SiteError
from fedtrain.evaluation_parts import GROUP, OWN, list_groups, list_parts
from fedtrain.ledger.faults import BudgetError
from fedtrain.ledger.site_ledger import Released, SiteLedger
from fedtrain.params import Vector, compute_vector_digest
from fedtrain.plan import make_entry, sends_metrics
from fedtrain.policy import PolicyError
from fedtrain.protocol import (
    ARRAYS,
    DESCRIPTION,
    GRADIENT_NORM,
    LEDGER_LINE,
    LOCAL_STEPS,
    METRICS,
    PARAMETERS,
    PART_SUMS,
    PREPARATION_TEXT,
    PUBLIC_TEXT,
    REFUSAL,
    RELEASE,
    SERVER_ROUND,
    SITE_INDEX,
    SITE_NAME,
    STATISTICS_TEXT,
    TEST_SUMS,
    TRAIN_LOSS,
    VALIDATION_SUMS,
    WEIGHT,
    describe_publicly,
)
from fedtrain.training.local import LocalTask, LocalTrainer, LocalUpdate
from fedtrain.training.measures import Sums

from .custody import pack_update, unpack_update
from .flower import read_parameters, read_start, to_array_record
from .own_part import begin_round, end_round, load_own_model, merge_local_layers
from .site import (
    Site,
    check_index,
    compute_rate_factor,
    identify_site,
    open_site,
    read_clip,
    read_config,
    read_number,
    read_proximal_mu,
    read_text,
)

log = logging.getLogger("fedtrain.clients")


def describe(message: Message, context: Context) -> Message:
    """Answer a `query.describe`: name, public constants, and sums for the preparation."""
    site = identify_site(message, context)
    try:
        return _describe(message, site)
    except SchemaFault as error:  # said before anything is trained, with the site's name
        who = f"partition-id {site.index}" if site.custody is None else repr(site.custody.name)
        raise MissingColumnError(f"site {who}: {error}") from error


def _describe(message: Message, site: Site) -> Message:
    description: dict[str, str | int] = {SITE_NAME: site.name, SITE_INDEX: site.index}
    refusal = _find_refusal(site)
    if refusal:
        description[REFUSAL] = refusal
    else:
        check_index(site)
        description[PUBLIC_TEXT] = to_canonical(site.runtime.shards.public.to_json())
        description[STATISTICS_TEXT] = _describe_statistics(site)
    content = RecordDict({DESCRIPTION: ConfigRecord(dict(description))})
    return Message(content, reply_to=message)


def _find_refusal(site: Site) -> str:
    """Return in public words why the site takes no part in the run; empty if it does."""
    if site.custody is None:
        return ""
    try:
        site.custody.admit(site.config, site.run)
    except (PolicyError, BudgetError) as error:
        log.warning("run_refused kind=%s message=%s", error.code, error)
        return describe_publicly(error)[1]
    return ""


def train(message: Message, context: Context) -> Message:
    """Answer a `train`: the local model, its weight, and what was released."""
    site = open_site(message, context)
    _refuse_if_hidden(site)
    record = read_config(message)
    start = read_start(message, site.config.federation.strategy)
    own = produce_update(site, record, start)
    update, weight = own.update, own.weight
    plan, sent = site.runtime.plan, update.vector
    if site.config.federation.strategy == "FedNova" and update.steps:
        sent = start + (sent - start) / np.float32(update.steps)
    entry = make_entry(
        plan,
        site=site.name,
        round=int(read_number(record, SERVER_ROUND)),
        # No guarantee rests on which bytes an unprotected update had; hashing them costs 4 %.
        update_digest=None if plan is None else compute_vector_digest(sent),
        released=own.released,
    )
    metrics: dict[str, int | float | list[int] | list[float]] = {WEIGHT: weight}
    if sends_metrics(site.config):
        metrics[TRAIN_LOSS] = update.train_loss
    if update.gradient_norm is not None:
        metrics[GRADIENT_NORM] = math.log10(update.gradient_norm)
    if site.config.federation.strategy == "FedNova":
        metrics[LOCAL_STEPS] = update.steps
    content = RecordDict(
        {
            ARRAYS: to_array_record({PARAMETERS: sent}),
            METRICS: MetricRecord(metrics),
            RELEASE: ConfigRecord({LEDGER_LINE: entry.to_json()}),
        }
    )
    return Message(content, reply_to=message)


def evaluate(message: Message, context: Context) -> Message:
    """Answer an `evaluate`: metric sums of the global model on validation and test records."""
    site = open_site(message, context)
    _refuse_if_hidden(site)
    record, vector = read_config(message), read_parameters(message)
    validation, test = compute_sums(site, record, vector)
    sums = {VALIDATION_SUMS: _flatten(validation), TEST_SUMS: _flatten(test)}
    parts = compute_parts(site, record, vector)
    sums |= {f"{PART_SUMS}{name}": _flatten(part) for name, part in parts.items()}
    content = RecordDict({ARRAYS: to_array_record(sums), METRICS: MetricRecord({WEIGHT: 1})})
    return Message(content, reply_to=message)


@dataclass(frozen=True)
class OwnUpdate:
    """A site's update of a round, and what its ledger says of it.

    Attributes:
        update: The local model.
        weight: The site's weight: its number of training records, or 1.
        released: The entry that pays for it; None where the site keeps no ledger.
    """

    update: LocalUpdate
    weight: int
    released: Released | None = None


def check_budget(site: Site, record: ConfigRecord, start: Vector) -> None:
    """Raise BudgetError where a round could not be released: before keys are dealt for it."""
    if keeps_ledger(site):
        _get_ledger(site).find_release(
            site.run,
            int(read_number(record, SERVER_ROUND)),
            model_digest=compute_model_digest(start, read_clip(site.config, record)).hex(),
        )


def produce_update(
    site: Site, record: ConfigRecord, start: Vector, *, clip: float | None = None
) -> OwnUpdate:
    """Train, and pay for it before anything leaves; a round that was paid for is not run again.

    Args:
        site: The site.
        record: The message's config record.
        start: Global model, `(d,)`.
        clip: The round's adaptive clip, where there is one.

    Raises:
        BudgetError: The round is refused; data was not opened.
        PeerError: See `compute_update`.
    """
    if not keeps_ledger(site):
        update, weight = compute_update(site, record, start)
        return OwnUpdate(update, weight)
    released = _get_ledger(site).release(
        site.run,
        int(read_number(record, SERVER_ROUND)),
        model_digest=compute_model_digest(start, clip).hex(),
        compute=lambda: pack_update(compute_update(site, record, start)[0]),
    )
    return OwnUpdate(unpack_update(released), 1, released)


def compute_update(site: Site, record: ConfigRecord, start: Vector) -> tuple[LocalUpdate, int]:
    """Train on a site's records from a global model.

    Args:
        site: The site.
        record: The message's config record: round, preparation, proximal coefficient.
        start: Global model, `(d,)`.

    Returns:
        The local model, and the site's weight: its number of training records, or 1.

    Raises:
        PeerError: The record is incomplete; or, without site-level privacy, training ended with
            values that are not finite.
        DataError: The site's records cannot be used.
    """
    round_ = int(read_number(record, SERVER_ROUND))
    preparation, trainer = site.runtime.prepare(read_text(record, PREPARATION_TEXT))
    records = site.runtime.load(site.index, preparation).train
    attack = find_attack(site)
    if attack is not None:
        records = corrupt_records(attack, records, classes=len(preparation.label_names))
    draws = site.config.training.sampling == "poisson"
    begun = begin_round(site, start, round_)
    task = LocalTask(
        records=records,
        start=begun.model,
        shuffling=site.make_shuffling(round_),
        sampling=site.make_generator("sampling", round_) if draws else None,
        noise=site.make_generator("noise", round_) if draws else None,
        proximal_mu=read_proximal_mu(record),
        correction=begun.correction,
        rate_factor=compute_rate_factor(site.config, record, round_),
    )
    (update,) = trainer.train([task])
    if not isinstance(update, LocalUpdate):
        if not site.config.privacy.covers_sites:
            raise update
        # Its data may be why. A site that dropped out would say so: it stays, with no change.
        log.warning("update_is_zero site=%s message=%s", site.name, update)
        update = LocalUpdate(begun.model, 0.0, 0)
    update = end_round(site, start, round_, update=update, records=records)
    if attack is not None:
        model = start if start.ndim == 1 else start[0]
        update = replace(update, vector=corrupt_update(attack, model, update.vector))
    equal = site.config.federation.weighting == "equal"
    return update, 1 if equal else len(records.labels)


def find_attack(site: Site) -> AttackersSection | None:
    """Return what a simulated site attacks with; None where it does not."""
    section = site.config.attackers
    if section is None:
        return None
    names, seed = site.runtime.shards.site_names, site.config.run.seed
    return section if site.name in choose_attackers(section, names, seed=seed) else None


def compute_sums(
    site: Site, record: ConfigRecord, vector: Vector
) -> tuple[Sums | None, Sums | None]:
    """Return a site's metric sums of validation and test; None where it has no such records.

    Args:
        site: The site.
        record: The message's config record.
        vector: Global model, `(d,)`.

    Raises:
        PeerError: The model's outputs are not finite.
        SiteError: The run's metrics are suppressed.
    """
    if not sends_metrics(site.config):
        raise SiteError("privacy.metrics = 'suppressed': this site computes no metrics to send")
    preparation, trainer = site.runtime.prepare(read_text(record, PREPARATION_TEXT))
    shard = site.runtime.load(site.index, preparation)
    before = int(read_number(record, SERVER_ROUND)) + 1
    vector = merge_local_layers(site, vector, before=before)
    validation = _evaluate_split(trainer, vector, shard.validation, histograms=False)
    return validation, _evaluate_split(trainer, vector, shard.test, histograms=True)


def compute_parts(site: Site, record: ConfigRecord, vector: Vector) -> dict[str, Sums | None]:
    """Return a site's metric sums of what is summed up beside validation and test.

    Args:
        site: The site.
        record: The message's config record.
        vector: Global model, `(d,)`.

    Returns:
        By the names of `list_parts`; None where there is nothing to sum up.

    Raises:
        PeerError: A model's outputs are not finite.
    """
    names = list_parts(site.config)
    if not names:
        return {}
    preparation, trainer = site.runtime.prepare(read_text(record, PREPARATION_TEXT))
    shard = site.runtime.load(site.index, preparation)
    round_ = int(read_number(record, SERVER_ROUND))
    vector = merge_local_layers(site, vector, before=round_ + 1)
    parts: dict[str, Sums | None] = dict.fromkeys(names)
    if OWN in parts:
        own = load_own_model(site, vector, round=round_, records=shard.train)
        if own is not None:
            parts[OWN] = _evaluate_split(trainer, own, shard.test, histograms=False)
    for code, name in enumerate(list_groups(site.config)):
        chosen = take_group(shard.test, code)
        parts[f"{GROUP}{name}"] = _evaluate_split(trainer, vector, chosen, histograms=False)
    return parts


def keeps_ledger(site: Site) -> bool:
    """Say whether the site pays for its updates; an unprotected run has no price."""
    return site.custody is not None and site.config.privacy.unit != "none"


def _get_ledger(site: Site) -> SiteLedger:
    if site.custody is None:
        raise RuntimeError("this site keeps no ledger")
    return site.custody.ledger


def _refuse_if_hidden(site: Site) -> None:
    """Refuse to answer in plain where the run's config promises secure aggregation."""
    if site.config.secure_aggregation.mode != "off":
        raise SiteError(
            f"secure_aggregation.mode = '{site.config.secure_aggregation.mode}': this site does not"
            " release a single update or metric; ask by the protocol"
        )


def _describe_statistics(site: Site) -> str:
    """Return the sums that a federated preparation needs, or nothing where it needs none."""
    hidden = site.config.secure_aggregation.mode == "protocol" or site.config.statistics is not None
    if site.config.privacy.unit != "none" or hidden:
        return ""  # the preparation is public constants; nothing of a single site is sent
    return to_canonical(site.runtime.shards.compute_statistics(site.index).to_json())


def _evaluate_split(
    trainer: LocalTrainer, vector: Vector, records: Split, *, histograms: bool
) -> Sums | None:
    if not len(records.labels):
        return None
    return trainer.evaluate(vector, records, histograms=histograms)


def _flatten(sums: Sums | None) -> NDArray[np.float64]:
    return np.empty(0, np.float64) if sums is None else np.asarray(sums.to_flat(), np.float64)
