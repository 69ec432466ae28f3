"""Strategies that correct for what local steps do at sites with unlike data: SCAFFOLD and FedNova.

Both need no more than one average of a round, so that secure aggregation stands below them as below
FedAvg. The model goes out and comes back as one flat vector.

Shapes: d is the length of the flat parameter vector.

References:
    SCAFFOLD: Karimireddy et al. 2020, algorithm 1, option II. FedNova: Wang et al. 2020.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedtrain.params import Vector
from fedtrain.protocol import CONTROL, LOCAL_STEPS, METRICS, PARAMETERS, WEIGHT

from .flower import hold


class Scaffold(FedAvg):
    """SCAFFOLD: sites subtract their own drift, and add what the coordinator knows of all.

    A site's new control variate is c_i - c + (x - y_i) / (K eta). As x, c, K and eta are public,
    the mean of its changes over the survivors follows from the mean update alone: -c - mean(y_i -
    x) / (K eta). So the coordinator's control variate is computed from the sum that it has anyway.

    Attributes:
        control: The coordinator's control variate c, `(d,)`; None before the first round.

    Guarantees:
        `control` is a function of the sums of the rounds so far and of public constants. Under
        differential privacy these are noised: it is post-processing and costs nothing.
    """

    def __init__(self, *, sites: int, steps: int, learning_rate: float, **options: Any) -> None:
        """Make the strategy.

        Args:
            sites: N, of the whole run.
            steps: K, local steps, the same at every site.
            learning_rate: eta, the sites'.
            options: FedAvg's own.
        """
        super().__init__(**options)
        self._sites = sites
        self._reach = steps * learning_rate
        self._start: Vector | None = None
        self.control: Vector | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the control variate beside the model."""
        self._start = arrays[PARAMETERS].numpy()
        if self.control is None:
            self.control = np.zeros_like(self._start)
        both = hold({PARAMETERS: self._start, CONTROL: self.control})
        return super().configure_train(server_round, both, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, and move the control variate by |S| / N of the survivors' mean change."""
        ready = list(replies)
        aggregated, metrics = super().aggregate_train(server_round, ready)
        if aggregated is None or self._start is None or self.control is None:
            return aggregated, metrics
        update = aggregated[PARAMETERS].numpy().astype(np.float64) - self._start
        # Every site weighs 1: the weight counts survivors, or is the plan's expected cohort.
        survivors = sum(_read_weight(reply) for reply in ready)
        change = -self.control - update / self._reach
        self.control += (min(1.0, survivors / self._sites) * change).astype(np.float32)
        return aggregated, metrics


class Nova(FedAvg):
    """FedNova: sites send their update per local step; the average is scaled by their mean steps.

    So a site that takes more steps for having more records does not pull the objective its way.
    With equal steps it is FedAvg. It is Wang et al.'s for plain SGD, whose steps count alike.
    """

    def __init__(self, **options: Any) -> None:
        """Make the strategy; see FedAvg."""
        super().__init__(**options)
        self._start: Vector | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember what the updates start from."""
        self._start = arrays[PARAMETERS].numpy()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Scale the mean update per step by the mean number of steps."""
        aggregated, metrics = super().aggregate_train(server_round, replies)
        if aggregated is None or metrics is None or self._start is None:
            return aggregated, metrics
        steps = float(metrics.get(LOCAL_STEPS, 1))  # type: ignore[arg-type]
        per_step = aggregated[PARAMETERS].numpy().astype(np.float64) - self._start
        result = (self._start + steps * per_step).astype(np.float32)
        return hold({PARAMETERS: result}), metrics


def _read_weight(reply: Message) -> float:
    weight = reply.content.metric_records[METRICS][WEIGHT]
    return float(weight) if isinstance(weight, int | float) else 0.0
