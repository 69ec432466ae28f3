"""The site's side of federated statistics: what it may be asked, and its encoded vector."""

from flwr.app import ConfigRecord

from fedtrain.errors import SiteError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.protocol import PREPARATION_TEXT, SERVER_ROUND
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.masks import Words
from fedtrain.statistics.plan import StatisticsPlan
from fedtrain.statistics.preparing import build_preparation_plan
from fedtrain.statistics.vector import StatisticsVector

from .site import Site, read_number, read_text


def read_plan(site: Site, record: ConfigRecord) -> StatisticsPlan:
    """Return the plan of a sum of statistics, or refuse it.

    A deployed site answers only what the run's config itself fixes: a coordinator that could ask
    again and again, of one site fewer each time, would subtract.

    Raises:
        SiteError: The run's config protects what the plan would release without noise, or noise of
            this kind does not cover.
        RefusalError: A real site is asked for other statistics than its preparation needs.
        PeerError: The plan cannot be read.
    """
    plan = StatisticsPlan.from_text(read_text(record, PREPARATION_TEXT))
    privacy = site.config.privacy
    if privacy.covers_persons or privacy.covers_sites:
        raise SiteError(
            f"privacy.unit = '{privacy.unit}': statistics are noised for single records, which"
            " does not cover it"
        )
    if privacy.covers_records and not plan.noise_multiplier:
        raise SiteError(f"privacy.unit = '{privacy.unit}': no statistics leave without noise")
    if not site.simulated or site.custody is not None:
        own = build_preparation_plan(site.config, site.runtime.shards.public)
        if privacy.unit != "none" or own is None or plan != own:
            raise RefusalError("context", "these are not the statistics that the config needs")
    return plan


def compute_statistics_words(
    site: Site, record: ConfigRecord, cohort: int, *, rounding: SecureGenerator
) -> Words:
    """Return the site's encoded vector of statistics.

    Raises:
        DataError: A column is of another kind, or there are too many records.
    """
    plan = read_plan(site, record)
    layout = StatisticsVector(plan, site.config, cohort=cohort)
    features, labels = site.runtime.shards.read_raw(site.index, plan.part)
    round_ = int(read_number(record, SERVER_ROUND))
    return layout.encode(
        features,
        labels,
        rounding=rounding,
        noise=site.make_generator("statistics noise", round_),
    )
