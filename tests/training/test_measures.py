"""Sums of each task against scikit-learn on the pooled records."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from fedtrain.config import parse_config
from fedtrain.errors import PeerError
from fedtrain.training.measures import build_measure

TARGETS = "target_bounds = [10, 60]"
PARTITION = "\n[partition]\nscheme = 'natural'"


def build(task, keys="", classes=3):
    return build_measure(
        parse_config(f"[data]\ntask = '{task}'\n{keys}{PARTITION}"), classes=classes
    )


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sum_in_parts(measure, outputs, targets, labels, *, histograms=True):
    parts = [slice(0, 7), slice(7, 40), slice(40, None)]
    first, *rest = (
        measure.read(
            measure.compute(outputs[p], targets[p], labels[p], histograms=histograms).to_flat()
        )
        for p in parts
    )
    for sums in rest:
        first = first + sums
    return measure.describe(first)


def test_numbers_from_sums_equal_scikit_learns():
    targets = torch.rand(90, 1, generator=torch.Generator().manual_seed(1))
    outputs = targets + 0.2 * draw(90, 1)
    found = sum_in_parts(build("regression", TARGETS, 1), outputs, targets, targets)
    true, predicted = targets.double() * 50 + 10, outputs.double() * 50 + 10
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(true, predicted))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(true, predicted))
    assert found["r2"] == pytest.approx(reference.r2_score(true, predicted))
    assert found["loss"] == pytest.approx(float((outputs - targets).square().mean()), rel=1e-5)


def test_numbers_of_several_outputs_are_pooled():
    targets = torch.rand(90, 4, generator=torch.Generator().manual_seed(1))
    outputs = targets + 0.2 * draw(90, 4)
    found = sum_in_parts(build("regression", TARGETS, 4), outputs, targets, targets)
    true, predicted = targets.double().flatten(), outputs.double().flatten()
    assert found["r2"] == pytest.approx(reference.r2_score(true, predicted))
    mean = 50 * reference.mean_absolute_error(true, predicted)
    assert found["mae"] == pytest.approx(mean)


def test_r2_is_absent_where_targets_are_equal():
    targets = torch.full((5, 1), 0.4)
    sums = build("regression", TARGETS, 1).compute(targets, targets, targets, histograms=False)
    assert "r2" not in sums.describe()


def test_labels_from_sums_equal_scikit_learns():
    logits, labels = draw(90, 3), (draw(90, 3, seed=1) > 0.3).float()
    found = sum_in_parts(build("multi_label"), logits, labels, labels)
    true, predicted = labels.numpy(), (logits > 0).numpy()
    assert found["subset_accuracy"] == pytest.approx(reference.accuracy_score(true, predicted))
    assert found["accuracy"] == pytest.approx(1 - reference.hamming_loss(true, predicted))
    assert found["f1"] == pytest.approx(reference.f1_score(true, predicted, average="macro"))
    assert found["auc"] == pytest.approx(reference.roc_auc_score(true, logits), abs=0.01)
    precision = reference.average_precision_score(true, logits)
    assert found["average_precision"] == pytest.approx(precision, abs=0.02)


def test_anomalies_from_sums_equal_scikit_learns():
    features, labels = draw(90, 4), (torch.arange(90) % 5 == 0).long()
    outputs = features + draw(90, 4, seed=2) * (0.3 + 0.4 * labels[:, None])
    found = sum_in_parts(build("anomaly"), outputs, features, labels)
    errors = (outputs - features).square().mean(1)
    assert found["auc"] == pytest.approx(reference.roc_auc_score(labels, errors), abs=0.01)
    assert found["loss"] == pytest.approx(float(errors[labels == 0].mean()), rel=1e-5)


def test_class_metrics_have_balanced_accuracy_average_precision_and_perplexity():
    logits, labels = draw(90, 2), (draw(90, seed=1) > 0.5).long()
    found = sum_in_parts(build("classification", classes=2), logits, labels, labels)
    predicted, odds = logits.argmax(1), logits[:, 1] - logits[:, 0]
    balanced = reference.balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    precision = reference.average_precision_score(labels, odds)
    assert found["average_precision"] == pytest.approx(precision, abs=0.02)
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))


def test_calibration_error_finds_overconfidence_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    odds = 2 * torch.randn(20_000, generator=generator)
    labels = (torch.rand(20_000, generator=generator) < torch.sigmoid(odds)).long()
    measure = build("classification", classes=2)

    def find(factor):
        logits = torch.stack([torch.zeros_like(odds), factor * odds], 1)
        sums = measure.compute(logits, labels, labels, histograms=True)
        return measure.describe(sums)["ece"]

    assert find(1) < 0.02
    assert find(3) > 0.08


@pytest.mark.parametrize("task", ["regression", "multi_label", "anomaly"])
@pytest.mark.parametrize("spoil", ["short", "negative", "nan"])
def test_sums_that_are_none_are_refused(task, spoil):
    measure = build(task, TARGETS if task == "regression" else "", 2)
    outputs, labels = draw(9, 2), torch.ones(9, 2)
    labels = labels[:, 0].long() if task == "anomaly" else labels
    flat = measure.compute(outputs, outputs, labels, histograms=False).to_flat()
    flat = flat[:-1] if spoil == "short" else flat
    flat[-1 if spoil == "negative" else 0] = -1.0 if spoil == "negative" else float("nan")
    with pytest.raises(PeerError):
        measure.read(flat)
