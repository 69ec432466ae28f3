from pathlib import Path

import pytest

from fedtrain.report.diagnosis import describe_fit, describe_gradients
from fedtrain.report.run import Run


def make_run(train, validation, **more):
    lines = [
        {"round": i, "train_loss": t, "val_loss": v}
        for i, (t, v) in enumerate(zip(train, validation, strict=True), start=1)
    ]
    for key, values in more.items():
        for line, value in zip(lines, values, strict=True):
            line[key] = value
    return Run(path=Path("run"), config={}, state={}, metrics=lines, sites=[])


@pytest.mark.parametrize(
    ("train", "validation", "word"),
    [
        ([1.0, 0.5, 0.3, 0.2, 0.1], [1.0, 0.6, 0.5, 0.6, 0.7], "Overfitting: since round 3"),
        ([1.0, 0.5, 0.3, 0.2, 0.1], [1.0, 0.6, 0.5, 0.45, 0.44], "Overfitting: the validation"),
        ([1.0] * 5, [1.0, 0.99, 1.0, 0.98, 0.99], "Underfitting"),
        ([1.0, 0.8, 0.6, 0.5, 0.4], [1.0, 0.8, 0.6, 0.5, 0.4], "Not finished"),
        ([1.0, 0.4, 0.3, 0.3, 0.3], [1.0, 0.5, 0.32, 0.31, 0.31], None),
        ([0.2, 0.1], [0.5, 0.9], None),
    ],
)
def test_fit_is_said_in_words(train, validation, word):
    found = describe_fit(make_run(train, validation))
    assert found.startswith(word) if word else not found


def test_nothing_is_said_of_losses_that_were_not_sent():
    run = Run(path=Path("run"), config={}, state={}, metrics=[{"round": 1}], sites=[])
    assert not describe_fit(run)
    assert not describe_gradients(run)


@pytest.mark.parametrize(
    ("norms", "word"),
    [([1.0, 1e-7], "vanish"), ([1e5, 1.0], "explode: their mean norm in round 1"), ([1, 2], None)],
)
def test_gradients_are_said_in_words(norms, word):
    found = describe_gradients(make_run([1.0, 1.0], [1.0, 1.0], gradient_norm=norms))
    assert (word in found) if word else not found
