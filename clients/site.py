"""Which site of which run a message is for, and what its records say."""

from dataclasses import dataclass

from flwr.app import ConfigRecord, Context, Message

from fedtrain.config import Config
from fedtrain.errors import ConfigError, PeerError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.protocol import CONFIG, CONFIG_DIGEST, CONFIG_TEXT, PROXIMAL_MU

from .runtime import Runtime, open_runtime


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
    def config(self) -> Config:
        """The run's config."""
        return self.runtime.config

    @property
    def name(self) -> str:
        """The site's name."""
        return self.runtime.shards.site_names[self.index]

    def make_generator(self, purpose: str, round: int) -> SecureGenerator:
        """Return the CSPRNG for one purpose of one round."""
        if self.simulated:
            return SecureGenerator.from_seed(self.config.run.seed, purpose, self.name, round)
        return SecureGenerator.from_system()


def open_site(message: Message, context: Context) -> Site:
    """Find out which site of which run a message is for, and open it.

    Raises:
        PeerError: The message lacks its config, or the digest is another's.
        ConfigError: This process is told to be a site that the data does not have.
    """
    record = read_config(message)
    runtime = open_runtime(
        read_text(record, CONFIG_TEXT),
        read_text(record, CONFIG_DIGEST),
        data_path=str(context.node_config.get("data-path", "")),
    )
    index = int(context.node_config.get("partition-id", 0))
    if not 0 <= index < len(runtime.shards.site_names):
        raise ConfigError(
            f"partition-id = {index}, but the data has {len(runtime.shards.site_names)} sites;"
            " start this node with a smaller one"
        )
    return Site(runtime, index, context.node_config.get("randomness") == "simulated")


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


def read_number(record: ConfigRecord, key: str) -> float:
    """Return a number of a config record, or refuse it."""
    value = record.get(key)
    if not isinstance(value, int | float):
        raise PeerError(f"the message lacks '{key}'")
    return value
