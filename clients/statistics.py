"""The site's side of federated statistics: what it may be asked, and its encoded vector.

A real site answers two questions, and each only as the run's config has it: what the run's own
preparation needs, before round 1, and what a run asks that trains nothing (`[statistics]`). The
second is paid for in the site's ledger, or counted by its policy where there is no noise.
"""

from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord

from fedtrain.errors import SiteError
from fedtrain.ledger.site_ledger import Released
from fedtrain.policy import PolicyError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.privacy.site_noise import NoiseShare
from fedtrain.protocol import (
    PREPARATION_ROUND,
    PREPARATION_TEXT,
    QUESTION_ROUND,
    SERVER_ROUND,
    STATISTICS,
)
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.masks import Words
from fedtrain.statistics.plan import StatisticsPlan, build_asked_plan, compute_question_digest
from fedtrain.statistics.preparing import build_preparation_plan
from fedtrain.statistics.vector import StatisticsVector

from .custody import Custody
from .site import Site, read_number, read_text


@dataclass(frozen=True)
class Statistics:
    """A site's encoded vector of statistics.

    Attributes:
        words: `(m,)`.
        share: The noise that is in it; None where it is exact.
        released: The entry of the site's ledger that pays for it; None without one.
    """

    words: Words
    share: NoiseShare | None = None
    released: Released | None = None


def verify_purpose(site: Site, purpose: str) -> None:
    """Refuse to train or evaluate in a run that asks for statistics: it has paid for no more.

    Raises:
        RefusalError: See above.
    """
    if site.config.statistics is not None and purpose != STATISTICS:
        raise RefusalError("context", "this run asks for statistics, and for nothing else")


def read_plan(site: Site, record: ConfigRecord) -> StatisticsPlan:
    """Return the plan of a sum of statistics, or refuse it.

    A deployed site answers only what the run's config itself fixes, once: a coordinator that could
    ask again and again, of one site fewer each time, would subtract.

    Raises:
        SiteError: The run's config protects what the plan would release without noise, or noise of
            this kind does not cover; or no policy allows a question.
        RefusalError: A site is asked for other statistics than its config has, or in another round.
        PeerError: The plan cannot be read.
    """
    if site.config.statistics is not None and site.custody is None and not site.simulated:
        raise SiteError(
            "a run asks for statistics, which a policy must allow; name the site's folder as"
            " site-dir in the node's configuration"
        )
    plan = StatisticsPlan.from_text(read_text(record, PREPARATION_TEXT))
    privacy, asked = site.config.privacy, site.config.statistics is not None
    if privacy.covers_persons or privacy.covers_sites:
        raise SiteError(
            f"privacy.unit = '{privacy.unit}': statistics are noised for single records, which"
            " does not cover it"
        )
    if privacy.covers_records and not plan.noise_multiplier:
        raise SiteError(f"privacy.unit = '{privacy.unit}': no statistics leave without noise")
    if read_number(record, SERVER_ROUND) != (QUESTION_ROUND if asked else PREPARATION_ROUND):
        raise RefusalError("context", "statistics are summed once, and not in this round")
    if asked:
        if plan != build_asked_plan(site.config, site.runtime.shards.public):
            raise RefusalError("context", "these are not the statistics that the config asks for")
    elif not site.simulated or site.custody is not None:
        own = build_preparation_plan(site.config, site.runtime.shards.public)
        if privacy.unit != "none" or own is None or plan != own:
            raise RefusalError("context", "these are not the statistics that the config needs")
    return plan


def check_question(site: Site, record: ConfigRecord, cohort: int) -> None:
    """Refuse what could not be answered: before keys are dealt for it.

    Args:
        site: The site.
        record: The message's config record.
        cohort: Most sites of the sum.

    Raises:
        PolicyError: Too few records, or too many answers, for a sum without noise.
        BudgetError: The site's ledger says that it answered another question in this run.
        FedtrainError: See `read_plan`.
    """
    plan = read_plan(site, record)
    if site.custody is None or site.config.statistics is None:
        return
    if plan.noise_multiplier:
        digest = compute_question_digest(plan, cohort)
        site.custody.ledger.find_release(site.run, QUESTION_ROUND, model_digest=digest)
    else:
        _, labels = site.runtime.shards.read_raw(site.index, plan.part)
        _verify_records(site.custody, len(labels))
        site.custody.verify_exact(site.run)


def compute_statistics(
    site: Site, record: ConfigRecord, cohort: int, *, rounding: SecureGenerator
) -> Statistics:
    """Return the site's encoded vector of statistics, paid for; asked again, the same bytes.

    Raises:
        DataError: A column is of another kind, or there are too many records.
        FedtrainError: See `check_question`.
    """
    plan = read_plan(site, record)
    layout = StatisticsVector(plan, site.config, cohort=cohort)
    round_ = int(read_number(record, SERVER_ROUND))
    custody = None if site.config.statistics is None else site.custody

    def encode() -> Words:
        features, labels = site.runtime.shards.read_raw(site.index, plan.part)
        if custody is not None and layout.share is None:
            _verify_records(custody, len(labels))
        # Of two questions no difference is without noise, where both have one secret.
        question = compute_question_digest(plan, cohort)
        noise = site.make_generator(f"statistics noise {question}", round_)
        return layout.encode(features, labels, rounding=rounding, noise=noise)

    if custody is None:
        return Statistics(encode(), layout.share)
    if layout.share is None:
        words = encode()
        custody.take_exact(site.run)
        return Statistics(words)
    dtype = np.dtype(layout.encoding.dtype).newbyteorder("<")
    released = custody.ledger.release(
        site.run,
        round_,
        model_digest=compute_question_digest(plan, cohort),
        compute=lambda: encode().astype(dtype, copy=False),
    )
    words = np.frombuffer(released.payload, dtype).astype(layout.encoding.dtype)
    return Statistics(words, layout.share, released)


def _verify_records(custody: Custody, private_count: int) -> None:
    least = custody.policy.min_statistics_records
    if private_count < least:
        raise PolicyError(
            "min_statistics_records",
            f"there are {private_count} records; this site's policy.min_statistics_records for an"
            f" answer without noise is {least}; ask with statistics.target_epsilon",
        )
