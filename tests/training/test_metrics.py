"""Metrics from sums: equal to scikit-learn's over the pooled rows, whatever the split."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from fedtrain.errors import DataError, PeerError, RunFailedError
from fedtrain.training.metrics import (
    BINS,
    LOG_ODDS_LIMIT,
    MetricSums,
    compute_flat_length,
    compute_log_odds,
    compute_metric_sums,
    compute_metrics,
)


def draw(seed: int, n: int, classes: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that know something about the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 1.0
    return logits * scale, labels


def score_class(logits: torch.Tensor, column: int) -> np.ndarray:
    """Log-odds in the plain way, unclipped."""
    others = torch.cat([logits[:, :column], logits[:, column + 1 :]], dim=1).double()
    return (logits[:, column].double() - others.logsumexp(1)).numpy()


cases = st.tuples(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 5))


@settings(max_examples=60, deadline=None)
@given(cases)
def test_metrics_equal_sklearn(case: tuple[int, int, int]) -> None:
    logits, labels = draw(*case)
    metrics = compute_metrics(compute_metric_sums(logits, labels, 3.0))
    true, predicted = labels.numpy(), logits.numpy().argmax(1)
    average = "binary" if case[2] == 2 else "macro"
    options = {"average": average, "zero_division": 0}
    assert metrics["loss"] == 3.0 / case[1]
    assert metrics["accuracy"] == accuracy_score(true, predicted)
    assert metrics["precision"] == pytest.approx(precision_score(true, predicted, **options), 1e-14)
    assert metrics["recall"] == pytest.approx(recall_score(true, predicted, **options), 1e-14)
    assert metrics["f1"] == pytest.approx(f1_score(true, predicted, **options), 1e-14)


@settings(max_examples=40, deadline=None)
@given(cases, st.lists(st.integers(0, 60), max_size=4))
def test_sums_over_a_split_equal_sums_over_all(case: tuple[int, int, int], cuts: list[int]) -> None:
    logits, labels = draw(*case)
    total = MetricSums.zero(case[2])
    for part, truth in zip(
        torch.tensor_split(logits, sorted(cuts)),
        torch.tensor_split(labels, sorted(cuts)),
        strict=True,
    ):
        total = total + compute_metric_sums(part, truth, len(part) * 0.5)
    assert total.to_flat() == compute_metric_sums(logits, labels, len(logits) * 0.5).to_flat()


@settings(max_examples=40, deadline=None)
@given(cases, st.booleans())
def test_flat_form_comes_back(case: tuple[int, int, int], histograms: bool) -> None:
    sums = compute_metric_sums(*draw(*case), 1.25, histograms=histograms)
    flat = sums.to_flat()
    back = MetricSums.from_flat(flat, case[2])
    assert len(flat) == compute_flat_length(case[2], histograms=histograms)
    assert back.to_flat() == flat
    assert compute_metrics(back) == compute_metrics(sums)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_auc_is_close_to_sklearn_on_realistic_scores(classes: int, scale: float) -> None:
    logits, labels = draw(1, 3000, classes, scale)
    columns = [1] if classes == 2 else range(classes)
    exact = np.mean([roc_auc_score(labels == c, score_class(logits, c)) for c in columns])
    metrics = compute_metrics(compute_metric_sums(logits, labels, 0.0))
    assert metrics["auc"] == pytest.approx(exact, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 80), st.sampled_from([0.01, 0.1, 1.0, 20.0]))
def test_auc_error_stays_below_half_the_share_of_ties(seed: int, n: int, scale: float) -> None:
    logits, labels = draw(seed, n, 2, scale)
    labels[:2] = torch.tensor([0, 1])
    sums = compute_metric_sums(logits, labels, 0.0)
    others, members = sums.score_histograms[0].astype(float)
    bound = 0.5 * (others * members).sum() / (others.sum() * members.sum())
    exact = roc_auc_score(labels, score_class(logits, 1))
    assert abs(compute_metrics(sums)["auc"] - exact) <= bound + 1e-12


def test_auc_is_exact_where_no_bin_is_shared() -> None:
    logits = torch.tensor([[0.0, -2.0], [0.0, 1.0], [0.0, -1.0], [0.0, 3.0]])
    sums = compute_metric_sums(logits, torch.tensor([0, 0, 1, 1]), 0.0)
    assert compute_metrics(sums)["auc"] == 0.75


def test_auc_is_half_for_one_score() -> None:
    sums = compute_metric_sums(torch.zeros(6, 2), torch.tensor([0, 1, 1, 0, 0, 0]), 0.0)
    assert compute_metrics(sums)["auc"] == 0.5


@pytest.mark.parametrize("classes", [2, 3])
def test_auc_is_absent_for_one_kind_of_label(classes: int) -> None:
    logits, _ = draw(0, 5, classes)
    metrics = compute_metrics(compute_metric_sums(logits, torch.zeros(5, dtype=torch.int64), 1.0))
    assert "auc" not in metrics
    plain = {"loss", "accuracy", "precision", "recall", "f1", "balanced_accuracy"}
    assert set(metrics) - {"average_precision"} == plain | {"ece"}


def test_auc_averages_only_classes_that_have_members() -> None:
    logits, labels = draw(3, 400, 2, 1.0)
    three = torch.cat([logits, torch.full((400, 1), -9.0)], dim=1)
    exact = np.mean([roc_auc_score(labels == c, score_class(three, c)) for c in (0, 1)])
    metrics = compute_metrics(compute_metric_sums(three, labels, 0.0))
    assert metrics["auc"] == pytest.approx(exact, abs=2e-3)


def test_auc_is_absent_without_histograms() -> None:
    sums = compute_metric_sums(*draw(0, 50, 3), 1.0, histograms=False)
    assert "auc" not in compute_metrics(sums)
    assert len(sums.to_flat()) == 10


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.sampled_from([0.0, 1.0, 15.0, 1e4, 3e37]))
def test_log_odds_equal_the_definition(seed: int, classes: int, scale: float) -> None:
    logits, _ = draw(seed, 30, classes, scale)
    scores = logits.double().numpy()
    exact = np.stack([score_class(logits, c) for c in range(classes)], axis=1)
    found = compute_log_odds(scores, scores.argmax(1))
    np.testing.assert_allclose(
        found, exact.clip(-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT), rtol=1e-9, atol=1e-9
    )


def test_extreme_logits_fall_into_the_outer_bins() -> None:
    sums = compute_metric_sums(torch.tensor([[0.0, 3e38], [3e38, 0.0]]), torch.tensor([1, 0]), 0.0)
    assert sums.score_histograms[0, 1, BINS - 1] == 1
    assert sums.score_histograms[0, 0, 0] == 1
    assert compute_metrics(sums)["auc"] == 1.0


@pytest.mark.parametrize("classes", [2, 4])
def test_no_record_has_no_metric(classes: int) -> None:
    empty = compute_metric_sums(torch.zeros(0, classes), torch.zeros(0, dtype=torch.int64), 0.0)
    assert compute_metrics(empty) == {}
    assert empty.to_flat() == MetricSums.zero(classes).to_flat()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(RunFailedError, match="not finite"):
        compute_metric_sums(torch.tensor([[0.0, bad], [1.0, 2.0]]), labels, 0.0)
    with pytest.raises(RunFailedError, match="not finite"):
        compute_metric_sums(torch.zeros(2, 2), labels, bad)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_that_is_no_class_is_refused(label: int) -> None:
    with pytest.raises(DataError, match="outside 0 to 2"):
        compute_metric_sums(torch.zeros(2, 3), torch.tensor([0, label]), 0.0)


@pytest.mark.parametrize("bad", [-1.0, 0.5, math.nan, math.inf, 2.0**60])
@pytest.mark.parametrize("position", [1, 4, 5, 700])
def test_flat_form_with_a_wrong_count_is_refused(bad: float, position: int) -> None:
    flat = compute_metric_sums(*draw(0, 9, 2), 1.0).to_flat()
    flat[position] = bad
    with pytest.raises(PeerError):
        MetricSums.from_flat(flat, 2)


def test_flat_form_of_another_length_is_refused() -> None:
    flat = compute_metric_sums(*draw(0, 9, 3), 1.0).to_flat()
    for wrong in ([], flat[:-1], [*flat, 0.0]):
        with pytest.raises(PeerError, match=f"{len(wrong)} numbers"):
            MetricSums.from_flat(wrong, 3)


def test_flat_form_with_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(PeerError, match="finite"):
        MetricSums.from_flat([math.nan, 1.0, 0.0, 0.0, 1.0], 2)


def test_flat_form_whose_histograms_miss_a_record_is_refused() -> None:
    flat = compute_metric_sums(*draw(0, 9, 2), 1.0).to_flat()
    flat[1] += 1
    with pytest.raises(PeerError, match="different records"):
        MetricSums.from_flat(flat, 2)


def test_sums_of_other_kinds_are_not_added() -> None:
    three = MetricSums.zero(3)
    for other in (MetricSums.zero(4), MetricSums.zero(3, histograms=False)):
        with pytest.raises(PeerError, match="cannot be added"):
            _ = three + other
