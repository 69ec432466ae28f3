"""From what the strategy makes of a round to the next global model.

Shapes: d is the length of the flat parameter vector.
"""

from collections.abc import Sequence

import numpy as np

from fedtrain.compression import compute_prune_share, prune
from fedtrain.config import Config
from fedtrain.errors import RunFailedError
from fedtrain.local_layers import find_local_layers, restore_local_layers
from fedtrain.params import Layout, Vector
from fedtrain.training.quantisation import round_model
from fedtrain.training.schedules import read_schedule


class NextModel:
    """What a config asks of every new model: layers left alone, a step's length, few weights."""

    def __init__(self, config: Config, layout: Layout) -> None:
        """Check the config against the model.

        Raises:
            ConfigError: A pattern of local layers does not fit it.
        """
        self._config = config
        self._layout = layout
        section = config.personalisation
        self._local = () if section is None else section.local_layers or ()
        if self._local:
            find_local_layers(layout, self._local)

    def make(
        self, result: Vector, start: Vector, *, round_: int, losses: Sequence[float]
    ) -> Vector:
        """Return the next model.

        Args:
            result: What the strategy made of the round's updates, `(d,)`.
            start: The round's start model, `(d,)`.
            round_: The round.
            losses: Validation losses so far.

        Raises:
            RunFailedError: The result is not finite.
        """
        if self._local:  # what noise, or a strategy, did to layers that are not sent
            result = restore_local_layers(self._layout, self._local, result, start)
        if not np.isfinite(result).all():
            raise RunFailedError(
                f"the global model is not finite after round {round_}; lower"
                f" training.learning_rate = {self._config.training.learning_rate:g}"
            )
        return self._compress(round_, self._shorten(round_, start, result, losses))

    def _shorten(
        self, round_: int, start: Vector, result: Vector, losses: Sequence[float]
    ) -> Vector:
        """Go from the round's start towards the strategy's result as far as the schedule says."""
        schedule = read_schedule(self._config.federation)
        if schedule is None:
            return result
        factor = schedule.compute_factor(round_, total=self._config.federation.rounds)
        factor *= schedule.compute_plateau_factor(losses)
        shortened: Vector = start + np.float32(factor) * (result - start)
        return shortened

    def _compress(self, round_: int, result: Vector) -> Vector:
        """Return the result without its smallest weights; the last of all in few bits."""
        section = self._config.compression
        if section is None:
            return result
        result = prune(self._layout, result, compute_prune_share(self._config, round_))
        if section.quantise_training is None or round_ < self._config.federation.rounds:
            return result
        return round_model(self._layout, result, section.quantise_training)
