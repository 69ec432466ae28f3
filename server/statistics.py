"""The coordinator's side of federated statistics: one secure sum over all sites."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedtrain.canonical import to_canonical
from fedtrain.config import Config, compute_digest, to_tree
from fedtrain.errors import RunFailedError
from fedtrain.plan import get_threshold
from fedtrain.protocol import (
    ARRAYS,
    CONFIG,
    CONFIG_DIGEST,
    CONFIG_TEXT,
    PARAMETERS,
    PREPARATION_ROUND,
    PREPARATION_TEXT,
    RUN_ID,
    SERVER_ROUND,
    STATISTICS,
)
from fedtrain.secagg.faults import RoundVoidError
from fedtrain.secagg.messages import SignedRoster
from fedtrain.secagg.policy import MIN_COHORT
from fedtrain.statistics.plan import StatisticsPlan
from fedtrain.statistics.vector import StatisticsVector

from .draws import Draws
from .flower import hold
from .secure import SecureGrid
from .stages import Exchanger, SecureRound


@dataclass(frozen=True)
class Summed:
    """One sum of statistics.

    Attributes:
        plan: What was asked.
        sums: `(m,)`, decoded.
        layout: Of the vectors; it knows their noise.
        secure: Who was asked, who is in the sum, and what their ledgers say.
        transcript: Its line for auditors.
    """

    plan: StatisticsPlan
    sums: NDArray[np.float64]
    layout: StatisticsVector
    secure: SecureRound
    transcript: list[str]

    @property
    def survivors(self) -> int:
        """Sites in the sum."""
        return len(self.secure.survivors)


class StatisticsGrid(SecureGrid):
    """A secure grid that sums statistics; before the first round, and in no round's place."""

    def sum_statistics(self, record: ConfigRecord, plan: StatisticsPlan) -> Summed:
        """Return the decoded sum over the survivors.

        Raises:
            RunFailedError: There is no sum; the reason is public.
            ConfigError: The plan does not fit the ring.
        """
        cohort = tuple(sorted(self._names.values()))
        layout = StatisticsVector(plan, self._config, cohort=len(cohort))
        last = SecureRound(STATISTICS, cohort, get_threshold(self._config, len(cohort)))
        self.last = last
        # The sites bind their keys to a model; there is none yet, and all of them know that.
        vector = np.zeros(1, np.float32)
        content = RecordDict({ARRAYS: hold({PARAMETERS: vector}), CONFIG: record})
        timeout = self._config.federation.round_timeout
        exchanger = Exchanger(self._grid, self._nodes, content, secure=last, timeout=timeout)
        try:
            if self._section.mode == "protocol":
                total = self._run_protocol(exchanger, vector, layout.encoding)
            else:
                total = self._add_plainly(exchanger, layout.encoding)
        except RoundVoidError as error:
            raise RunFailedError(f"the sum of statistics is void: {error}") from error
        last.bytes_up, last.bytes_down = exchanger.bytes_up, exchanger.bytes_down
        sums = layout.decode(total, survivors=len(last.survivors))
        return Summed(plan, sums, layout, last, self.take_transcript())


def sum_statistics(
    grid: Grid,
    config: Config,
    plan: StatisticsPlan,
    *,
    names: Mapping[int, str],
    roster: SignedRoster,
    draws: Draws | None = None,
    run_id: str = "",
    attempt: int = 0,
    round: int = PREPARATION_ROUND,
) -> Summed:
    """Sum the statistics of a plan over all sites of a grid.

    Args:
        grid: Where the sites are.
        config: The resolved config.
        plan: What is asked.
        names: Site name of each node id.
        roster: Signed by the federation's root.
        draws: Where the coordinator's draws come from; by default a simulation's, from the seed.
        run_id: The run's identifier; a simulation's is in no sum's name.
        attempt: Number of the attempt; higher in each sitting of a run.
        round: 0 before the first round; 1 where the run asks for nothing else.

    Raises:
        RunFailedError: There are too few sites, or no sum.
    """
    least = max(config.secure_aggregation.min_cohort, MIN_COHORT)
    if len(names) < least:
        raise RunFailedError(
            f"{len(names)} sites are below secure_aggregation.min_cohort = {least}: fewer cannot"
            " hide from each other"
        )
    digest = compute_digest(config)
    draws = draws or Draws.from_seed(config.run.seed)
    secure = StatisticsGrid(
        grid,
        config,
        names=dict(names),
        roster=roster,
        digest=digest,
        classes=len(plan.labels),
        draws=draws,
        run_id="" if draws.simulated else run_id,
        attempt=attempt,
    )
    values: dict[str, Any] = {
        CONFIG_TEXT: to_canonical(to_tree(config)),
        CONFIG_DIGEST: digest,
        RUN_ID: run_id,
        SERVER_ROUND: round,
        PREPARATION_TEXT: plan.to_text(),
    }
    return secure.sum_statistics(ConfigRecord(values), plan)
