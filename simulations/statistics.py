"""Federated statistics of a scenario's sites, through the protocol of secure aggregation."""

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain.config import Config, build_config, load_config, to_tree
from fedtrain.data.shards import Shards
from fedtrain.errors import ConfigError, DataError
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.resolution import resolve
from fedtrain.scenarios import find_scenario
from fedtrain.seeds import derive_seed
from fedtrain.statistics.drift import Drift, measure_drift
from fedtrain.statistics.figures import DEFAULT_MIN_RECORDS, Figures, Sums, build_figures
from fedtrain.statistics.plan import DEFAULT_BINS, StatisticsPlan, build_asked_plan
from fedtrain.statistics.records import iterate_values
from fedtrain.statistics.result import StatisticsResult, make_result
from fedtrain.statistics.vector import calibrate_noise

from .grid import InProcessGrid
from .loading import load_app, refer_to_sibling
from .simulate import CLIENT_APP, FORGET_RUNS, MAKE_FOLDERS

_ASK = refer_to_sibling("server.question:ask_sites")


@dataclass(frozen=True)
class Noise:
    """What a whole command may cost a record."""

    target_epsilon: float
    target_delta: float


@dataclass(frozen=True)
class Sites:
    """A scenario's sites, as statistics see them.

    Attributes:
        config: Resolved; secure aggregation is on.
        shards: Their data.
    """

    config: Config
    shards: Shards


@dataclass(frozen=True)
class Answer:
    """What came out of one secure sum.

    Attributes:
        plan: What was asked.
        sums: `(m,)`.
        sites: Sites in the sum.
        cost: None where nothing was noised.
        noise_stddev: On each sum.
    """

    plan: StatisticsPlan
    sums: Sums
    sites: int
    cost: PrivacyCost | None
    noise_stddev: float

    def build_figures(self, min_records: int = DEFAULT_MIN_RECORDS) -> Figures:
        """Read the figures off the sum."""
        return build_figures(
            self.plan, self.sums, noise_stddev=self.noise_stddev, min_records=min_records
        )

    def build_result(self, min_records: int = DEFAULT_MIN_RECORDS) -> StatisticsResult:
        """Return what the sum tells, and what it cost."""
        return make_result(
            self.plan,
            self.sums,
            sites=self.sites,
            cost=self.cost,
            noise_stddev=self.noise_stddev,
            min_records=min_records,
        )


def open_sites(
    name_or_path: str, overrides: Iterable[str] = (), *, noised: bool, path: str | None = None
) -> Sites:
    """Open a scenario's sites for statistics.

    Args:
        name_or_path: The scenario.
        overrides: Changed keys.
        noised: Whether noise will protect each record.
        path: Other data of the same form, in place of `data.path`.

    Raises:
        ConfigError: The scenario protects its records, and the noise or its unit does not; or a
            public constant is missing.
        DataError: The data cannot be read.
    """
    config = resolve(load_config(find_scenario(name_or_path), overrides))
    if config.statistics is not None:
        raise ConfigError(
            "the scenario's [statistics] asks for itself: fedtrain simulate runs it; remove the"
            " section, and what is asked here is what the options say"
        )
    verify_noise(config, noised=noised)
    tree = json.loads(config.model_dump_json(exclude_none=True))
    count = config.partition.sites
    if count is not None and count < config.secure_aggregation.min_cohort:
        raise ConfigError(
            f"partition.sites = {count} is below secure_aggregation.min_cohort ="
            f" {config.secure_aggregation.min_cohort}: fewer sites cannot hide from each other in a"
            " sum of statistics"
        )
    if tree["secure_aggregation"]["mode"] == "off":
        tree["secure_aggregation"]["mode"] = "protocol"
        tree["federation"]["strategy"] = "FedAvg"
    if tree["data"].get("preparation") == "standardise":
        del tree["data"]["preparation"]
    if path is not None:
        if config.data.path is None:
            raise ConfigError(
                f"data.source = {config.data.source!r} reads no file, so that there is no other"
                f" data like it; {path!r} cannot be read"
            )
        tree["data"]["path"] = path
        # Two sums with the same noise would differ by the records alone.
        tree["run"]["seed"] = derive_seed(config.run.seed, "new data")
    shards = Shards.open(build_config(tree), strict=True)
    tree["partition"]["sites"] = len(shards)
    return Sites(build_config(tree), shards)


def verify_noise(config: Config, *, noised: bool) -> None:
    """Refuse statistics that the scenario's guarantee does not allow."""
    privacy = config.privacy
    if privacy.covers_persons or privacy.covers_sites:
        raise ConfigError(
            f"privacy.unit = '{privacy.unit}': statistics are noised for single records, which does"
            " not cover it; describe data of another unit"
        )
    if privacy.covers_records and not noised:
        raise ConfigError(
            f"privacy.unit = '{privacy.unit}': exact statistics would leave unprotected; give"
            " --epsilon and --delta"
        )


def ask_sites(
    sites: Sites,
    *,
    columns: Sequence[str] = (),
    bins: int = DEFAULT_BINS,
    correlation: bool = False,
    max_records: int | None = None,
    noise: Noise | None = None,
    sums: int = 1,
) -> Answer:
    """Ask all sites for one secure sum, by the messages that deployed sites know.

    Args:
        sites: From `open_sites`.
        columns: Only these; by default all.
        bins: Of each histogram.
        correlation: Whether every two numeric columns are compared.
        max_records: Of one site at most.
        noise: What all the sums may cost a record; None: they are exact.
        sums: How many of them there are.

    Raises:
        ConfigError: A column has no public bounds, or noise and ring do not go together.
        DataError: A site has more records than `max_records`.
        RunFailedError: There are too few sites, or no sum.
    """
    shards = sites.shards
    config = _ask_for(
        sites,
        columns=tuple(columns),
        bins=bins,
        correlation=correlation,
        max_records=max_records,
        noise=noise,
        sums=sums,
    )
    plan = build_asked_plan(config, shards.public)
    _verify_sizes(shards, plan)
    folder = config.simulation.sites_directory
    if folder is not None:
        load_app(MAKE_FOLDERS)(Path(folder), shards.site_names)
    load_app(FORGET_RUNS)()
    with InProcessGrid(CLIENT_APP, sites=len(shards), sites_directory=folder) as grid:
        # Site folders pay for each run by its name, whatever its seed.
        _, _, summed = load_app(_ASK)(grid, config, run_id=secrets.token_hex(16))
    delta = 1e-5 if noise is None else noise.target_delta
    return Answer(
        plan=plan,
        sums=summed.sums,
        sites=summed.survivors,
        cost=summed.layout.compute_cost(config, delta=delta),
        noise_stddev=summed.layout.compute_noise_stddev(summed.survivors),
    )


def _ask_for(
    sites: Sites,
    *,
    columns: tuple[str, ...],
    bins: int,
    correlation: bool,
    max_records: int | None,
    noise: Noise | None,
    sums: int,
) -> Config:
    """Return the config of a run that asks this, as a deployed run's would be."""
    config, known = sites.config, sites.shards.public.columns
    section: dict[str, Any] = {"bins": bins}
    section["correlation"] = correlation and config.data.source != "text"  # no columns there
    if columns or known:  # all, and not only those with public bounds: the others are refused
        section["columns"] = columns or known
    if max_records is not None:
        section["max_records"] = max_records
    if noise is not None:
        section["target_delta"] = noise.target_delta
        section["noise_multiplier"] = calibrate_noise(
            config,
            target_epsilon=noise.target_epsilon,
            target_delta=noise.target_delta,
            sums=sums,
        )
    return build_config(to_tree(config) | {"statistics": section})


def measure_site_drift(
    before: Sites,
    after: Sites,
    plan: StatisticsPlan,
    *,
    min_records: int,
    threshold: float,
) -> dict[str, Drift | None]:
    """Return each site's own drift, as the site would compute it from its own two histograms.

    Nothing of it is part of any sum; it is for the site's eyes, and this machine has all sites.

    Args:
        before: The sites with their training data.
        after: The same with new data.
        plan: Which columns and bins.
        min_records: Of either data set; None stands for a site with fewer, or without new data.
        threshold: Index that says "retrain".
    """
    drifts: dict[str, Drift | None] = {}
    for name in before.shards.site_names:
        drifts[name] = None
        if name not in after.shards.site_names:
            continue
        old, new = (_sum_own(sites.shards, name, plan) for sites in (before, after))
        if min(old[0], new[0]) >= min_records:
            drifts[name] = measure_drift(
                plan, old, new, min_records=min_records, threshold=threshold
            )
    return drifts


def _sum_own(shards: Shards, name: str, plan: StatisticsPlan) -> Sums:
    features, labels = shards.read_raw(shards.site_names.index(name), "all")
    total = np.zeros(plan.length)
    for values in iterate_values(features, labels, plan):
        total += values.sum(axis=0)
    return total


def _verify_sizes(shards: Shards, plan: StatisticsPlan) -> None:
    """Say in words on this machine, whose operator owns the data, what a site would not."""
    for site, name in enumerate(shards.site_names):
        if len(shards.read_raw(site, "all")[1]) > plan.max_records:
            raise DataError(
                f"site {name!r} has more than {plan.max_records} records; raise --max-records"
            )
