"""Which site of which run a message is for, and what its records say."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message

from fedtrain.config import Config
from fedtrain.errors import ConfigError, PeerError, SiteError
from fedtrain.plan import build_site_plan, compute_draws_seed
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.protocol import (
    CONFIG,
    CONFIG_DIGEST,
    CONFIG_TEXT,
    PROXIMAL_MU,
    RATE_FACTOR,
    RUN_ID,
    UPDATE_NORM,
)
from fedtrain.seeds import make_torch_generator
from fedtrain.training.schedules import read_schedule

from .custody import KEPT_FOLDER, Custody, open_custody
from .kept import Kept, open_kept
from .runtime import Runtime, open_runtime, verify_names_no_data


@dataclass(frozen=True)
class Site:
    """Which site of which run a message is for.

    Attributes:
        index: The site's number among `runtime.shards.site_names`.
        simulated: Draws come from the run's seed, so that the run is reproducible; set by the
            process that stands for the site, never by a message.
        custody: The site's own folder; None where it has none: then it keeps no budget.
        run: The run's identifier.
        kept_folder: Where a simulation keeps what sites keep of the run; None elsewhere.
    """

    runtime: Runtime
    index: int
    simulated: bool
    custody: Custody | None = None
    run: str = ""
    kept_folder: Path | None = None

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.runtime.config

    @property
    def name(self) -> str:
        """The site's name: its folder's, or the one that the data has for it."""
        if self.custody is not None:
            return self.custody.name
        return self.runtime.shards.site_names[self.index]

    @property
    def kept(self) -> Kept:
        """What the site keeps of the run from round to round."""
        if self.kept_folder is not None:
            return Kept(self.kept_folder, self.index)
        if self.custody is None:
            raise SiteError(
                "this run keeps something at the site from round to round; name the site's folder"
                " as site-dir in the node's configuration"
            )
        return open_kept(self.custody.path / KEPT_FOLDER, self.run, self.index)

    def make_generator(self, purpose: str, round: int) -> SecureGenerator:
        """Return the CSPRNG for one purpose of one round."""
        if self.simulated:
            seed = compute_draws_seed(self.config)
            return SecureGenerator.from_seed(seed, purpose, self.name, round)
        if self.custody is None:
            return SecureGenerator.from_system()
        secret = int.from_bytes(self.custody.load_secret(self.run), "big")
        return SecureGenerator.from_seed(secret, purpose, self.name, round)

    def make_shuffling(self, round: int) -> torch.Generator:
        """Return what orders a round's batches, and draws what a step draws for its records.

        Guarantees:
            At a real site under record-level privacy it is seeded by the CSPRNG. Units left out,
            hidden numbers and codes of a batch are drawn in a row, so that those of one record
            follow from how many stand before it: to who knows the draws, a record more would move
            the others' gradients, too. To who does not, each record's are independent of who else
            is there.
        """
        if self.simulated or not self.config.privacy.covers_records:
            return make_torch_generator(self.config.run.seed, "shuffling", self.name, round)
        seed = self.make_generator("shuffling", round).draw_bytes(8).tobytes()
        return torch.Generator().manual_seed(int.from_bytes(seed, "big") >> 1)


def open_site(message: Message, context: Context) -> Site:
    """Find out which site of which run a message is for, and whether it takes part in it.

    Raises:
        PeerError: The message lacks its config, or the digest is another's.
        PolicyError: The site's policy refuses the run.
        BudgetError: The site's budget refuses it.
        ConfigError: This process is told to be a site that the data does not have.
    """
    site = identify_site(message, context)
    if site.custody is None:
        check_index(site)
    else:
        site.custody.admit(site.config, site.run)
    return site


def identify_site(message: Message, context: Context) -> Site:
    """Find out which site of which run a message is for; policy and budget are not asked yet.

    A node's own configuration names the site's folder (`site-dir`) and its data (`data-path`: all
    of it is this site's), or, in a simulation, the folder of all sites' folders (`sites-dir`).

    Raises:
        PeerError: The message lacks its config, or the digest is another's.
        SiteError: A run tells a site with a folder which file to open, or a site to attack.
        ConfigError: This process is told to be a site that the data does not have.
    """
    record = read_config(message)
    own, all_sites = (str(context.node_config.get(key, "")) for key in ("site-dir", "sites-dir"))
    custody = open_custody(Path(own)) if own else None
    data_path = str(context.node_config.get("data-path", ""))
    runtime = open_runtime(
        read_text(record, CONFIG_TEXT),
        read_text(record, CONFIG_DIGEST),
        data_path=data_path,
        own=custody.name if custody is not None and data_path else None,
    )
    index = int(context.node_config.get("partition-id", 0))
    simulated = context.node_config.get("randomness") == "simulated"
    if runtime.config.attackers is not None and not simulated:
        raise SiteError("[attackers] is for simulations; this site attacks nobody")
    if custody is not None and not simulated and not data_path:
        verify_names_no_data(runtime.config)
    kept = str(context.node_config.get("kept-dir", "")) if simulated else ""
    site = Site(
        runtime,
        index,
        simulated,
        run=str(record.get(RUN_ID, "")),
        kept_folder=Path(kept) if kept else None,
    )
    if custody is not None:
        return replace(site, custody=custody)
    if all_sites:
        check_index(site)
        return replace(site, custody=open_custody(Path(all_sites) / site.name))
    return site


def check_index(site: Site) -> None:
    """Raise ConfigError where the data has no such site; opens the data."""
    count = len(site.runtime.shards.site_names)
    if not 0 <= site.index < count:
        raise ConfigError(
            f"partition-id = {site.index}, but the data has {count} sites;"
            " start this node with a smaller one"
        )


def read_config(message: Message) -> ConfigRecord:
    """Return the config record of a message, or refuse it."""
    record = message.content.get(CONFIG)  # config_records would build a dict of all
    if not isinstance(record, ConfigRecord):
        raise PeerError(f"the message lacks its '{CONFIG}' record")
    return record


def read_text(record: ConfigRecord, key: str) -> str:
    """Return a text of a config record, or refuse it."""
    value = record.get(key)
    if not isinstance(value, str):
        raise PeerError(f"the message lacks '{key}'")
    return value


def read_proximal_mu(record: ConfigRecord) -> float:
    """Return FedProx's coefficient; 0 where the message has none."""
    return float(read_number(record, PROXIMAL_MU)) if PROXIMAL_MU in record else 0.0


def read_plateau_factor(config: Config, record: ConfigRecord) -> float | None:
    """Return what the coordinator found in the losses so far; None where the rate ignores them.

    Raises:
        PeerError: It is missing, or not above 0 and at most 1.
    """
    if config.training.schedule != "plateau":
        return None
    factor = float(read_number(record, RATE_FACTOR))
    if not 0 < factor <= 1:
        raise PeerError(f"the round's '{RATE_FACTOR}' is {factor:g}, it must be in (0, 1]")
    return factor


def read_bound_number(config: Config, record: ConfigRecord) -> float | None:
    """Return what of a round every mask key is bound to beside the model: its clip or rate."""
    clip = read_clip(config, record)
    return read_plateau_factor(config, record) if clip is None and RATE_FACTOR in record else clip


def compute_rate_factor(config: Config, record: ConfigRecord, round: int) -> float:
    """Return what a round multiplies the learning rate by."""
    schedule = read_schedule(config.training)
    if schedule is None:
        return 1.0
    found = read_plateau_factor(config, record)
    own = schedule.compute_factor(round, total=config.federation.rounds)
    return own if found is None else own * found


def read_clip(config: Config, record: ConfigRecord) -> float | None:
    """Return the round's adaptive clip; None where the config's is fixed or there is none.

    Raises:
        PeerError: It is missing, or not above 0 and at most the config's largest.
    """
    plan = build_site_plan(config)
    if plan is None or plan.bit_noise_multiplier is None:
        return None
    clip = float(read_number(record, UPDATE_NORM))
    if not 0 < clip <= plan.max_update_norm:
        raise PeerError(
            f"the round's clip is {clip:g}, it must be above 0 and at most"
            f" privacy.site.max_update_norm = {plan.max_update_norm:g}"
        )
    return clip


def read_number(record: ConfigRecord, key: str) -> float:
    """Return a number of a config record, or refuse it."""
    value = record.get(key)
    if not isinstance(value, int | float):
        raise PeerError(f"the message lacks '{key}'")
    return value
