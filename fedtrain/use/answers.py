"""What a model's outputs mean, by what it was trained for.

Shapes: n records, k outputs.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.errors import ConfigError
from fedtrain.use.run_model import Records, RunModel

PREDICTION: Final = "prediction"
PROBABILITY: Final = "probability_"
SEPARATOR: Final = "; "
SCORE: Final = "anomaly_score"


def compute_answers(model: RunModel, features: Records) -> dict[str, NDArray[Any]]:
    """Return what the model says of prepared records.

    Returns:
        Columns `(n,)`, in order. Classes: `prediction` and `probability_CLASS`. Several labels:
        `prediction`, those more probable than not, and `probability_LABEL`. Numbers:
        `prediction_TARGET`, in the target's own unit. Anomalies: `anomaly_score`, the mean squared
        error of what the model makes of a record.
    """
    task, names = model.preparation.task, model.label_names
    if task is None:
        probabilities = model.compute_probabilities(features)
        likely = [names[index] for index in probabilities.argmax(axis=1)]
        return {PREDICTION: np.array(likely), **_name(PROBABILITY, names, probabilities)}
    if task == "masked":
        raise ConfigError(
            "a model of data.task = 'masked' answers nothing yet; train another from it, with"
            " model.start_from and model.reinitialise"
        )
    outputs = model.compute_outputs(features).astype(np.float64)
    if task == "multi_label":
        probabilities = 1 / (1 + np.exp(-outputs))
        likely = [SEPARATOR.join(np.array(names)[row > 0.5]) for row in probabilities]
        return {PREDICTION: np.array(likely), **_name(PROBABILITY, names, probabilities)}
    if task == "anomaly":
        errors = outputs - features.reshape(len(features), -1)
        return {SCORE: (errors**2).mean(axis=1)}
    low, high = model.preparation.target_bounds or (0.0, 1.0)
    return _name(f"{PREDICTION}_", names, low + outputs * (high - low))


def _name(
    prefix: str, names: tuple[str, ...], values: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    return {f"{prefix}{name}": values[:, i] for i, name in enumerate(names)}
