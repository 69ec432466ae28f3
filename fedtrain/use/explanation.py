"""Which inputs a model's answers rest on: permutation importance and integrated gradients.

Both speak of the model on these records, not of cause and effect; of inputs that say the same,
each may look unimportant.

Shapes: n records, g inputs (columns of a table, pixels of an image).

References:
    Permutation importance: Breiman 2001, Random Forests; for any model Fisher, Rudin, Dominici
    2019. Integrated gradients: Sundararajan, Taly, Yan 2017.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Group, RenderableType

from fedtrain.errors import ConfigError
from fedtrain.report.tables import format_count, format_number, make_table
from fedtrain.use.extras import require
from fedtrain.use.new_records import NewRecords, name_inputs
from fedtrain.use.run_model import RunModel

Method = Literal["permutation", "gradients"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
MAX_RECORDS: Final = 1024
MOST_ROWS: Final = 20
_STEPS: Final = 50
_CHUNK: Final = 64


@dataclass(frozen=True)
class Explanation:
    """How much each input matters.

    Attributes:
        method: `permutation`: mean rise of the loss when the input's values change places among
            the records. `gradients`: mean absolute share of the predicted class's output.
        names: Name of each input, `(g,)`.
        importance: `(g,)`.
        spread: Standard deviation over the repetitions `(g,)`; None for gradients.
        records: Records that were looked at.
        metrics: The metrics with every input in place.
    """

    method: Method
    names: tuple[str, ...]
    importance: NDArray[np.float64]
    spread: NDArray[np.float64] | None
    records: int
    metrics: dict[str, float]

    def rank(self) -> list[int]:
        """Return the inputs' places, the most important first."""
        return [int(i) for i in np.argsort(-self.importance, kind="stable")]

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as values that JSON can hold, the most important input first."""
        inputs = []
        for i in self.rank():
            entry: dict[str, Any] = {"input": self.names[i], "importance": self.importance[i]}
            inputs.append(entry if self.spread is None else entry | {"spread": self.spread[i]})
        return {
            "method": self.method,
            "records": self.records,
            "metrics": self.metrics,
            "inputs": inputs,
        }


def explain(
    model: RunModel,
    records: NewRecords,
    labels: NDArray[np.int64],
    *,
    method: Method = "permutation",
    repetitions: int = 5,
    seed: int = 0,
) -> Explanation:
    """Say which inputs a model's answers rest on.

    Args:
        model: The run's model.
        records: New records; of more than `MAX_RECORDS`, so many are drawn.
        labels: Their labels, `(n,)`.
        method: See `Explanation`; `gradients` needs the extra `explain`.
        repetitions: Of the permutations.
        seed: Of what is drawn.

    Raises:
        ConfigError: The method cannot explain this model, or its extra is not installed.
    """
    generator = np.random.default_rng(seed)
    features = records.features
    if len(labels) > MAX_RECORDS:
        chosen = np.sort(generator.choice(len(labels), MAX_RECORDS, replace=False))
        features, labels = features[chosen], labels[chosen]
    inputs = name_inputs(model.preparation)
    groups = [places for _, places in inputs]
    spread = None
    if method == "gradients":
        importance = compute_integrated_gradients(model, features, groups)
    else:
        importance, spread = compute_permutation_importance(
            model, features, labels, groups=groups, repetitions=repetitions, generator=generator
        )
    names = tuple(name for name, _ in inputs)
    metrics = model.compute_metrics(features, labels)
    return Explanation(method, names, importance, spread, len(labels), metrics)


def compute_permutation_importance(
    model: RunModel,
    features: NDArray[Any],
    labels: NDArray[np.int64],
    *,
    groups: list[list[int]],
    repetitions: int,
    generator: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of the rise of the mean loss, `(g,)` each."""
    base = model.compute_metrics(features, labels)["loss"]
    rises = np.zeros((len(groups), repetitions))
    changed = features.copy()
    flat, original = changed.reshape(len(features), -1), features.reshape(len(features), -1)
    for number, places in enumerate(groups):
        for repetition in range(repetitions):
            flat[:, places] = original[generator.permutation(len(labels))][:, places]
            rises[number, repetition] = model.compute_metrics(changed, labels)["loss"] - base
        flat[:, places] = original[:, places]
    return rises.mean(axis=1), rises.std(axis=1)


def compute_integrated_gradients(
    model: RunModel, features: NDArray[Any], groups: list[list[int]]
) -> NDArray[np.float64]:
    """Return the mean absolute attribution of each input to the predicted class, `(g,)`.

    The path begins at the mean record.

    Raises:
        ConfigError: Inputs are ids, between which there is no path; or captum is not installed.
    """
    if model.preparation.is_discrete:
        raise ConfigError("--method gradients: inputs are ids, not quantities; use permutation")
    captum = require("captum.attr", extra="explain")
    integrated = captum.IntegratedGradients(model.module)
    inputs = torch.from_numpy(features)
    baseline = inputs.mean(dim=0, keepdim=True)
    targets = torch.from_numpy(model.compute_outputs(features).argmax(axis=1))
    total = np.zeros(int(np.prod(features.shape[1:])))
    for part, target in zip(torch.split(inputs, _CHUNK), torch.split(targets, _CHUNK), strict=True):
        shares = integrated.attribute(part, baseline, target=target, n_steps=_STEPS)
        values = shares.detach().double().numpy().reshape(len(part), -1)
        for places in groups:  # shares of one raw value are added before their sign is dropped
            total[places[0]] += np.abs(values[:, places].sum(axis=1)).sum()
    return np.array([total[places[0]] for places in groups]) / max(len(features), 1)


def render_explanation(explanation: Explanation) -> RenderableType:
    """Return the most important inputs as a table."""
    ranked = explanation.rank()[:MOST_ROWS]
    spread = explanation.spread
    rows = [
        [
            explanation.names[i],
            format_number(float(explanation.importance[i])),
            format_number(None if spread is None else float(spread[i])),
        ]
        for i in ranked
    ]
    title = (
        f"{explanation.method}, {format_count(explanation.records, 'record')}, accuracy"
        f" {format_number(explanation.metrics.get('accuracy'))}"
    )
    if len(explanation.names) > len(ranked):
        title += f", the {len(ranked)} first of {len(explanation.names)} inputs"
    return Group(title, make_table(["input", "importance", "spread"], rows))
