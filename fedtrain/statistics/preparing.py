"""Statistics that a run's own preparation rests on, where only a secure sum may tell them."""

from dataclasses import replace
from typing import Final

import numpy as np

from fedtrain.config import Config
from fedtrain.data.preparation import Preparation, fit_preparation
from fedtrain.data.public import PublicConstants
from fedtrain.data.requirements import needs_secure_statistics
from fedtrain.data.shards import Shards
from fedtrain.data.statistics import Moments, Statistics
from fedtrain.errors import DataError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.protocol import STATISTICS
from fedtrain.statistics.figures import Histogram, Sums, SumsReader, unscale_moments
from fedtrain.statistics.plan import StatisticsPlan, build_plan
from fedtrain.statistics.vector import StatisticsVector, add_in_clear

# Bins of the histograms that clipping quantiles are read from.
_CLIP_BINS: Final = 256


def build_preparation_plan(config: Config, public: PublicConstants) -> StatisticsPlan | None:
    """Return the plan of the sums that the config's preparation needs; None: it needs none.

    The config and the source's format fix all of it, so that a site can tell whether it is asked
    for anything else; columns that its own file lacks are missing in all of its records.
    """
    if not needs_secure_statistics(config, public):
        return None
    data = config.data
    columns = data.columns or (*data.bounds, *data.categories)
    bins = 0 if data.clip_outliers is None else _CLIP_BINS
    return build_plan(config, replace(public, columns=columns), bins=bins, part="train")


def read_statistics(config: Config, plan: StatisticsPlan, sums: Sums) -> Statistics:
    """Return a decoded sum in the form that `fit_preparation` takes.

    Args:
        config: The run's config.
        plan: From `build_preparation_plan`.
        sums: `(m,)`, decoded.

    Raises:
        DataError: No site has a training record.
    """
    reader = SumsReader(plan, sums)
    if reader.records < 1:
        raise DataError("no site has a training record; lower the validation and test fractions")
    numeric, missing, quantiles = {}, {}, {}
    for column, part in zip(plan.ranges, reader.ranges, strict=True):
        count, total, squares = unscale_moments(column, part)
        missing[column.name] = round(reader.records - count)
        if count < 1:
            continue
        numeric[column.name] = Moments(count, (total,), (squares,))
        if config.data.clip_outliers is not None:
            edges = np.linspace(column.low, column.high, plan.bins + 1).tolist()
            histogram = Histogram(tuple(edges), tuple(np.maximum(part[3:], 0).tolist()))
            low, high = (histogram.compute_quantile(s) for s in config.data.clip_outliers)
            if low < high:
                quantiles[column.name] = (low, high)
    categories = {}
    for choice, part in zip(plan.choices, reader.choices, strict=True):
        counts = {name: round(n) for name, n in zip(choice.categories, part, strict=False)}
        categories[choice.name] = counts
        missing[choice.name] = round(float(part[-1]))
    labels = {name: round(n) for name, n in zip(plan.labels, reader.labels, strict=True)}
    return Statistics(round(reader.records), None, numeric, categories, missing, labels, quantiles)


def fit_in_clear(shards: Shards, config: Config) -> Preparation:
    """Fit the preparation as a simulated federation will, in this process: the same to the bit.

    Args:
        shards: All sites' data.
        config: The run's config.

    Raises:
        ConfigError: A public constant is missing that the preparation needs.
        DataError: Sites disagree, or there is no class.
    """
    plan = build_preparation_plan(config, shards.public)
    if plan is None:
        each = (shards.compute_statistics(site) for site in range(len(shards)))
        return fit_preparation(each, config, shards.public)
    layout = StatisticsVector(plan, config, cohort=len(shards))
    seed = config.run.seed
    words = (
        layout.encode(
            *shards.read_raw(site, plan.part),
            rounding=SecureGenerator.from_seed(seed, f"rounding {STATISTICS}", name, 0),
            noise=SecureGenerator.from_seed(seed, "statistics noise", name, 0),
        )
        for site, name in enumerate(shards.site_names)
    )
    sums = layout.decode(add_in_clear(words, layout), survivors=len(shards))
    return fit_preparation([read_statistics(config, plan, sums)], config, shards.public)
