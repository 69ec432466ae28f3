"""Before the first round: which sites there are, the fitted preparation, the start model."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import nn

from fedtrain.canonical import to_canonical
from fedtrain.config import Config, compute_digest, to_tree
from fedtrain.data.preparation import Preparation, fit_preparation
from fedtrain.data.public import PublicConstants
from fedtrain.data.schema import verify_schemas
from fedtrain.data.statistics import Statistics
from fedtrain.errors import RunFailedError
from fedtrain.models.start import build_start_model
from fedtrain.plan import compute_draws_seed
from fedtrain.protocol import (
    CONFIG,
    CONFIG_DIGEST,
    CONFIG_TEXT,
    DESCRIPTION,
    PUBLIC_TEXT,
    REFUSAL,
    RUN_ID,
    SITE_INDEX,
    SITE_NAME,
    STATISTICS_TEXT,
)
from fedtrain.secagg.roster import PinnedRoster
from fedtrain.secagg.simulated import make_pinned_roster
from fedtrain.statistics.preparing import build_preparation_plan, read_statistics
from fedtrain.training.losses import verify_class_weights

from .draws import Draws
from .flower import exchange
from .statistics import sum_statistics

log = logging.getLogger("fedtrain.server")

# Between two looks at which sites are connected.
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Member:
    """A site of the federation: its Flower node, its place, its name, why it takes no part."""

    node_id: int
    index: int
    name: str
    refusal: str = ""


@dataclass(frozen=True)
class Setting:
    """What the rounds of a run work with.

    Attributes:
        members: The sites, in a fixed order; those that take no part among them.
        preparation: Fitted over all sites, or made of public constants.
        model: The start model; every later one has its architecture.
        base: Keys that every message's config record carries.
        roster: The sites' identities, signed by the federation's root; None without secure
            aggregation.
        draws: Where the coordinator's draws come from.
        summed: Whether the preparation rests on a secure sum.
    """

    members: tuple[Member, ...]
    preparation: Preparation
    model: nn.Module
    base: dict[str, str]
    roster: PinnedRoster | None = None
    draws: Draws = field(default_factory=Draws.from_system)
    summed: bool = False

    def get_roster(self) -> PinnedRoster:
        """Return the federation's roster, which secure aggregation needs."""
        if self.roster is None:
            raise RunFailedError("this run has no roster; set secure_aggregation.mode = 'off'")
        return self.roster


@dataclass(frozen=True)
class Gathered:
    """The sites, as they described themselves.

    Attributes:
        members: All of them, in a fixed order.
        willing: Those that take part, each with its description.
        public: What is known of their data without a record, alike at all.
        base: Keys that every message's config record carries.
    """

    members: tuple[Member, ...]
    willing: list[tuple[Member, ConfigRecord]]
    public: PublicConstants
    base: dict[str, str]

    @property
    def names(self) -> dict[int, str]:
        """Name by node id of those that take part."""
        return {member.node_id: member.name for member, _ in self.willing}


def set_up(
    grid: Grid,
    config: Config,
    *,
    run_id: str = "",
    draws: Draws | None = None,
    roster: PinnedRoster | None = None,
    kept: Preparation | None = None,
) -> Setting:
    """Ask every node who it is, and make the preparation and the start model.

    Args:
        grid: Where the sites are.
        config: The resolved config.
        run_id: The run's identifier; sites that keep a budget refuse a run without one.
        draws: Where the coordinator's draws come from; by default a simulation's, from the seed.
        roster: Of real sites, signed by their federation's root.
        kept: The preparation of an earlier sitting, whose sums no site gives twice.

    Raises:
        RunFailedError: No node answers, one cannot take part, or the policy or budget of all
            refuses; the reason is the site's public one.
        ConfigError: The sites' data and the config do not go together.
    """
    draws = draws or Draws.from_seed(compute_draws_seed(config))
    gathered = gather(grid, config, run_id=run_id)
    willing, public = gathered.willing, gathered.public
    roster = choose_roster(config, gathered, draws=draws, roster=roster)
    plan = build_preparation_plan(config, public)
    preparation = kept
    if preparation is None:
        each = _read_statistics(willing)
        if plan is not None and roster is not None:
            summed = sum_statistics(
                grid,
                config,
                plan,
                names=gathered.names,
                roster=roster.signed,
                draws=draws,
                run_id=run_id,
            )
            each = [read_statistics(config, plan, summed.sums)]
        preparation = fit_preparation(each, config, public)
    verify_class_weights(config.training, len(preparation.label_names))
    model = build_start_model(
        config,
        input_shape=preparation.input_shape,
        classes=preparation.outputs,
        input_dtype=torch.int64 if public.is_discrete else torch.float32,
    )
    members, base = gathered.members, gathered.base
    return Setting(members, preparation, model, base, roster, draws, plan is not None)


def gather(grid: Grid, config: Config, *, run_id: str) -> Gathered:
    """Ask every node who it is, whether it takes part, and what its data's form is.

    Args:
        grid: Where the sites are.
        config: The resolved config.
        run_id: The run's identifier.

    Raises:
        RunFailedError: No node answers, one cannot take part, or the policy or budget of all
            refuses; the reason is the site's public one.
        DataError: A site's data is of another form than the others'.
    """
    base = {
        CONFIG_TEXT: to_canonical(to_tree(config)),
        CONFIG_DIGEST: compute_digest(config),
        RUN_ID: run_id,
    }
    messages = [
        Message(
            RecordDict({CONFIG: ConfigRecord(dict(base))}),
            dst_node_id=node_id,
            message_type="query.describe",
        )
        for node_id in _wait_for_nodes(grid, config)
    ]
    replies = exchange(grid, messages, timeout=config.federation.round_timeout)
    descriptions = list(_read_descriptions(replies))
    if len(descriptions) < len(messages) or not messages:
        raise RunFailedError(
            f"{len(descriptions)} of {len(messages)} sites answered; the run needs all of them at"
            " its start"
        )
    # Sites that see their own data alone all have index 0: then their names decide.
    descriptions.sort(key=lambda pair: (pair[0].index, pair[0].name))
    _check_names([member.name for member, _ in descriptions])
    willing = [pair for pair in descriptions if not pair[0].refusal]
    if not willing:
        raise RunFailedError(f"no site takes part; the first says {descriptions[0][0].refusal!r}")
    public = _compare_schemas(willing)
    members = tuple(replace(member, index=i) for i, (member, _) in enumerate(descriptions))
    return Gathered(members, willing, public, base)


def choose_roster(
    config: Config, gathered: Gathered, *, draws: Draws, roster: PinnedRoster | None
) -> PinnedRoster | None:
    """Return the real sites' roster, or a simulation's; a real site pins its own and refuses that.

    None without secure aggregation.
    """
    if roster is not None and not draws.simulated:
        return roster
    if config.secure_aggregation.mode == "off":
        return None
    return make_pinned_roster(config.run.seed, [member.name for member in gathered.members])


def _wait_for_nodes(grid: Grid, config: Config) -> list[int]:
    """Return all node ids, as soon as there are as many as the config has sites."""
    wanted = config.partition.sites or 1
    deadline = time.monotonic() + config.federation.round_timeout
    nodes = list(grid.get_node_ids())
    if len(nodes) < wanted:
        log.info("waiting_for_sites connected=%d wanted=%d", len(nodes), wanted)
    while len(nodes) < wanted:
        if time.monotonic() > deadline:
            raise RunFailedError(
                f"{len(nodes)} sites are connected after federation.round_timeout ="
                f" {config.federation.round_timeout:g} s, partition.sites = {wanted} are needed;"
                " start the others or lower partition.sites"
            )
        time.sleep(_POLL_SECONDS)
        nodes = list(grid.get_node_ids())
    if config.partition.sites is not None and len(nodes) > wanted:
        raise RunFailedError(
            f"{len(nodes)} sites are connected, above partition.sites = {wanted}; raise it or stop"
            " the others"
        )
    return nodes


def _check_names(names: Sequence[str]) -> None:
    """Refuse two nodes for one site: it would pay for both and be counted twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise RunFailedError(
                f"{count} nodes say that they are site {name!r}; give each its own partition-id"
            )


def _read_descriptions(replies: Iterable[Message]) -> Iterable[tuple[Member, ConfigRecord]]:
    for reply in replies:
        node_id = reply.metadata.src_node_id
        if reply.has_error():
            raise RunFailedError(f"node {node_id} cannot take part: {reply.error.reason}")
        record = reply.content.config_records[DESCRIPTION]
        name, refusal = str(record[SITE_NAME]), str(record.get(REFUSAL, ""))
        if refusal:
            log.warning("site_refused site=%s reason=%s", name, refusal)
        yield Member(node_id, int(str(record[SITE_INDEX])), name, refusal), record


def _compare_schemas(descriptions: Sequence[tuple[Member, ConfigRecord]]) -> PublicConstants:
    """Return what the first site says of its data without a record; refuse what differs.

    Raises:
        DataError: A site's data is of another form; the message names site and column.
    """
    public, sums = {}, {}
    for member, record in descriptions:
        public[member.name] = PublicConstants.from_json(json.loads(str(record[PUBLIC_TEXT])))
        for one in _read_statistics([(member, record)]):
            sums[member.name] = one
    verify_schemas(public, sums)
    return public[descriptions[0][0].name]


def _read_statistics(descriptions: Iterable[tuple[Member, ConfigRecord]]) -> Iterable[Statistics]:
    for _, record in descriptions:
        text = str(record[STATISTICS_TEXT])
        if text:
            yield Statistics.from_json(json.loads(text))
