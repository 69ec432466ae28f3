"""What a site keeps warm between messages: the config, its data, one model.

In a simulation one process stands for many sites; they share one runtime, so that a thousand sites
need one copy of the data and one model.
"""

import json
from functools import cached_property, lru_cache

import torch
from torch import nn

from fedtrain.config import Config, build_config, compute_digest
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shard, Shards
from fedtrain.errors import PeerError, SiteError
from fedtrain.models.start import build_site_model
from fedtrain.params import Layout
from fedtrain.plan import RecordPlan, build_record_plan
from fedtrain.secagg.policy import SitePolicy
from fedtrain.secagg.replay import LiveSessions
from fedtrain.secagg.store import MemoryStore
from fedtrain.statistics.plan import build_reading_config
from fedtrain.training.local import LocalTrainer
from fedtrain.training.memory import recall_start
from fedtrain.training.trial import verify_trainable

# Runs that one process keeps warm at a time.
_WARM = 2


class Runtime:
    """One run at this process: its config and data, opened once."""

    def __init__(self, config_text: str, data_path: str, own: str | None) -> None:
        config = build_config(json.loads(config_text))
        if data_path:
            data = config.data.model_copy(update={"path": data_path})
            config = config.model_copy(update={"data": data})
        self.config: Config = config
        self._own = own
        self.digest = compute_digest(config)
        self.plan: RecordPlan | None = build_record_plan(config)
        self._fitted: tuple[str, Preparation, LocalTrainer] | None = None
        self._own_trainer: LocalTrainer | None = None
        # Secure aggregation: each site's attempt in progress and its record of the run.
        self.attempts: dict[int, object] = {}
        self.stores: dict[int, MemoryStore] = {}
        self.live: dict[str, LiveSessions] = {}  # of real sites
        self.policy: SitePolicy | None = None
        self.runs: dict[str, str] = {}  # name of the run for each purpose

    @cached_property
    def shards(self) -> Shards:
        """The data, opened when it is first asked for: after policy and budget."""
        return Shards.open(build_reading_config(self.config), own=self._own)

    @property
    def layout(self) -> Layout:
        """Of the model, once it is made."""
        if self._fitted is None:
            raise RuntimeError("the model is made when the preparation is known")
        return self._fitted[2].layout

    @property
    def own_trainer(self) -> LocalTrainer:
        """The trainer of sites' own models: shuffled batches, without noise, on a second model."""
        if self._own_trainer is None:
            if self._fitted is None:
                raise RuntimeError("the model is made when the preparation is known")
            config = build_own_config(self.config)
            self._own_trainer = LocalTrainer(self._build(self._fitted[1]), config, private=False)
        return self._own_trainer

    def _build(self, preparation: Preparation) -> nn.Module:
        return build_site_model(
            self.config,
            input_shape=preparation.input_shape,
            classes=preparation.outputs,
            input_dtype=torch.int64 if preparation.is_discrete else torch.float32,
        )

    def prepare(self, preparation_text: str) -> tuple[Preparation, LocalTrainer]:
        """Return the fitted preparation and the trainer for it, made on first use.

        Raises:
            ConfigError: See `build_site_model`; or the model breaks a rule of record-level privacy,
                which a site finds out for itself.
        """
        if self._fitted is None or self._fitted[0] != preparation_text:
            preparation = Preparation.from_json(json.loads(preparation_text))
            model = self._build(preparation)
            if self.plan is not None:
                verify_trainable(
                    model,
                    self.config,
                    input_shape=preparation.input_shape,
                    is_discrete=preparation.is_discrete,
                )
            memory = recall_start(model, self.config)
            trainer = LocalTrainer(model, self.config, memory=memory)
            self._fitted = (preparation_text, preparation, trainer)
            self._own_trainer = None
        return self._fitted[1:]

    def load(self, site: int, preparation: Preparation) -> Shard:
        """Return one site's prepared records."""
        return self.shards.load(site, preparation)


def build_own_config(config: Config) -> Config:
    """Return the config that sites' own models are trained by."""
    section = config.personalisation
    if section is None:
        raise RuntimeError("this run has no models of sites' own")
    changes = {
        "sampling": "shuffle",
        "local_epochs": section.epochs,
        "local_steps": None,
        "learning_rate": section.learning_rate or config.training.learning_rate,
    }
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def verify_names_no_data(config: Config) -> None:
    """Refuse a run that says which of a site's files to open.

    Raises:
        SiteError: It does.
    """
    if config.data.path:
        raise SiteError(
            f"the run names data here, {config.data.path!r}; which file a site's records are in the"
            " site says: set data_path in agent.toml (data-path of a Flower node)"
        )


@lru_cache(maxsize=_WARM)
def _open(config_text: str, data_path: str, own: str | None) -> Runtime:
    return Runtime(config_text, data_path, own)


def forget_runs() -> None:
    """Close what is warm: the same config may stand for other data in the next simulation."""
    _open.cache_clear()


def open_runtime(
    config_text: str, config_digest: str, *, data_path: str = "", own: str | None = None
) -> Runtime:
    """Return the warm runtime of a run, opened on its first message.

    Args:
        config_text: The resolved config as JSON.
        config_digest: What the coordinator says its digest is.
        data_path: The site's own data path; empty: the config's.
        own: Name of the site, if all of that data is its own; else the config partitions it.

    Raises:
        PeerError: The digest does not belong to the config.
        ConfigError: The config does not satisfy this version's schema.
        DataError: The data cannot be opened.
    """
    runtime = _open(config_text, data_path, own)
    if runtime.digest != config_digest:
        raise PeerError(
            f"the config's digest is {runtime.digest[:12]}, the message says"
            f" {config_digest[:12]}; coordinator and site run different versions"
        )
    return runtime
