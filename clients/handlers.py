"""What a site does with each kind of message."""

import logging
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedtrain.config import Config, to_canonical
from fedtrain.data.shards import Split
from fedtrain.errors import ConfigError, PeerError
from fedtrain.params import Vector, compute_vector_digest
from fedtrain.plan import make_entry
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.protocol import (
    ARRAYS,
    CONFIG,
    CONFIG_DIGEST,
    CONFIG_TEXT,
    DESCRIPTION,
    LEDGER_LINE,
    METRICS,
    PARAMETERS,
    PREPARATION_TEXT,
    PROXIMAL_MU,
    PUBLIC_TEXT,
    RELEASE,
    SERVER_ROUND,
    SITE_INDEX,
    SITE_NAME,
    STATISTICS_TEXT,
    TEST_SUMS,
    TRAIN_LOSS,
    VALIDATION_SUMS,
    WEIGHT,
)
from fedtrain.seeds import make_torch_generator
from fedtrain.training.local import LocalTask, LocalTrainer, LocalUpdate

from .flower import read_parameters, to_array_record
from .runtime import Runtime, open_runtime

log = logging.getLogger("fedtrain.clients")


@dataclass(frozen=True)
class Site:
    """Which site of which run a message is for.

    Attributes:
        index: The site's number among `runtime.shards.site_names`.
        simulated: Draws come from the run's seed, so that the run is reproducible; set by the
            process that stands for the site, never by a message.
    """

    runtime: Runtime
    index: int
    simulated: bool

    @property
    def name(self) -> str:
        """The site's name."""
        return self.runtime.shards.site_names[self.index]

    def make_generator(self, purpose: str, round: int) -> SecureGenerator:
        """Return the CSPRNG for one purpose of one round."""
        if self.simulated:
            return SecureGenerator.from_seed(
                self.runtime.config.run.seed, purpose, self.name, round
            )
        return SecureGenerator.from_system()


def open_site(message: Message, context: Context) -> Site:
    """Find out which site of which run a message is for, and open it.

    Raises:
        PeerError: The message lacks its config, or the digest is another's.
        ConfigError: This process is told to be a site that the data does not have.
    """
    record = _read_config(message)
    runtime = open_runtime(
        _read_text(record, CONFIG_TEXT),
        _read_text(record, CONFIG_DIGEST),
        data_path=str(context.node_config.get("data-path", "")),
    )
    index = int(context.node_config.get("partition-id", 0))
    if not 0 <= index < len(runtime.shards.site_names):
        raise ConfigError(
            f"partition-id = {index}, but the data has {len(runtime.shards.site_names)} sites;"
            " start this node with a smaller one"
        )
    return Site(runtime, index, context.node_config.get("randomness") == "simulated")


def describe(message: Message, context: Context) -> Message:
    """Answer a `query.describe`: name, public constants, and sums for the preparation."""
    site = open_site(message, context)
    description = ConfigRecord(
        {
            SITE_NAME: site.name,
            SITE_INDEX: site.index,
            PUBLIC_TEXT: to_canonical(site.runtime.shards.public.to_json()),
            STATISTICS_TEXT: _describe_statistics(site),
        }
    )
    return Message(RecordDict({DESCRIPTION: description}), reply_to=message)


def train(message: Message, context: Context) -> Message:
    """Answer a `train`: the local model, its weight, and what was released."""
    site = open_site(message, context)
    record = _read_config(message)
    round_ = _read_number(record, SERVER_ROUND)
    preparation, trainer = site.runtime.prepare(_read_text(record, PREPARATION_TEXT))
    records = site.runtime.load(site.index, preparation).train
    draws = site.runtime.config.training.sampling == "poisson"
    task = LocalTask(
        records=records,
        start=read_parameters(message),
        shuffling=make_torch_generator(
            site.runtime.config.run.seed, "shuffling", site.name, int(round_)
        ),
        sampling=site.make_generator("sampling", int(round_)) if draws else None,
        noise=site.make_generator("noise", int(round_)) if draws else None,
        proximal_mu=float(_read_number(record, PROXIMAL_MU)) if PROXIMAL_MU in record else 0.0,
    )
    (update,) = trainer.train([task])
    if not isinstance(update, LocalUpdate):
        raise update
    entry = make_entry(
        site.runtime.plan,
        site=site.name,
        round=int(round_),
        update_digest=compute_vector_digest(update.vector),
    )
    equal = site.runtime.config.federation.weighting == "equal"
    content = RecordDict(
        {
            ARRAYS: to_array_record({PARAMETERS: update.vector}),
            METRICS: MetricRecord(
                {WEIGHT: 1 if equal else len(records.labels), TRAIN_LOSS: update.train_loss}
            ),
            RELEASE: ConfigRecord({LEDGER_LINE: entry.to_json()}),
        }
    )
    return Message(content, reply_to=message)


def evaluate(message: Message, context: Context) -> Message:
    """Answer an `evaluate`: metric sums of the global model on validation and test records."""
    site = open_site(message, context)
    preparation, trainer = site.runtime.prepare(_read_text(_read_config(message), PREPARATION_TEXT))
    shard = site.runtime.load(site.index, preparation)
    vector = read_parameters(message)
    sums = {
        VALIDATION_SUMS: _sum_metrics(trainer, vector, shard.validation, histograms=False),
        TEST_SUMS: _sum_metrics(trainer, vector, shard.test, histograms=True),
    }
    content = RecordDict({ARRAYS: to_array_record(sums), METRICS: MetricRecord({WEIGHT: 1})})
    return Message(content, reply_to=message)


def _describe_statistics(site: Site) -> str:
    """Return the sums that a federated preparation needs, or nothing where it needs none."""
    config: Config = site.runtime.config
    if config.privacy.unit != "none":
        return ""  # under privacy the preparation is public constants; nothing is summed
    return to_canonical(site.runtime.shards.compute_statistics(site.index).to_json())


def _sum_metrics(
    trainer: LocalTrainer, vector: Vector, records: Split, *, histograms: bool
) -> NDArray[np.float64]:
    if not len(records.labels):
        return np.empty(0, np.float64)
    sums = trainer.evaluate(vector, records, histograms=histograms)
    return np.asarray(sums.to_flat(), np.float64)


def _read_config(message: Message) -> ConfigRecord:
    record = message.content.get(CONFIG)  # config_records would build a dict of all
    if not isinstance(record, ConfigRecord):
        raise PeerError(f"the message lacks its '{CONFIG}' record")
    return record


def _read_text(record: ConfigRecord, key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise PeerError(f"the message lacks '{key}'")
    return value


def _read_number(record: ConfigRecord, key: str) -> float:
    value = record.get(key)
    if not isinstance(value, int | float):
        raise PeerError(f"the message lacks '{key}'")
    return value
