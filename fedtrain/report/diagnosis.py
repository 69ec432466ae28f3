"""What the curves of a run say of its fit, in words: over, under, not finished, or nothing.

Rules of thumb on the losses that the sites sent; where they sent none, nothing is said. Training
losses are means over the records of a round, each before its step.
"""

from typing import Final

from fedtrain.report.run import Run

# A change of a loss by less than this share is within what rounds differ by.
_NOTABLE: Final = 0.05
_GAP: Final = 1.5  # validation loss over training loss
_FEWEST: Final = 5  # evaluations that anything is said of
# Mean norms of a batch's gradient by which steps do next to nothing, or run away.
_VANISHING: Final = 1e-5
_EXPLODING: Final = 1e3


def describe_fit(run: Run) -> str:
    """Return a finding with its cure; empty where the curves show nothing, or are short."""
    train, validation = dict(run.get_series("train_loss")), run.get_series("val_loss")
    if len(validation) < _FEWEST or not train:
        return ""
    rounds, losses = zip(*validation, strict=True)
    lowest = min(range(len(losses)), key=lambda index: losses[index])
    first, last, best = losses[0], losses[-1], losses[lowest]
    trained = [train[r] for r in rounds if r in train]
    if last > best * (1 + _NOTABLE) and trained[-1] < train.get(rounds[lowest], trained[-1]):
        return (
            f"Overfitting: since round {rounds[lowest]} the validation loss has risen from"
            f" {best:.4g} to {last:.4g} while the training loss fell to {trained[-1]:.4g}. End"
            " earlier (federation.patience), or add training.weight_decay or model.dropout."
        )
    if first > 0 and last > first * (1 - _NOTABLE):
        return (
            f"Underfitting: the validation loss has hardly fallen, from {first:.4g} to {last:.4g}."
            " Raise training.learning_rate, or take a larger model or more local steps."
        )
    if trained[-1] > 0 and last > _GAP * trained[-1]:
        return (
            f"Overfitting: the validation loss, {last:.4g}, is {last / trained[-1]:.1f} times the"
            " training loss. More records, training.weight_decay or model.dropout narrow the gap."
        )
    before = losses[-max(len(losses) // 4, 2)]
    if last < before * (1 - _NOTABLE):
        return (
            f"Not finished: the validation loss still fell over the last rounds, from {before:.4g}"
            f" to {last:.4g}. More rounds would lower it further."
        )
    return ""


def describe_gradients(run: Run) -> str:
    """Return a sentence on gradients that vanish or explode; empty where they do neither."""
    norms = run.get_series("gradient_norm")
    if not norms:
        return ""
    round_, norm = norms[-1]
    if norm < _VANISHING:
        return (
            f"Gradients vanish: their mean norm in round {round_} was {norm:.2g}. Take"
            " model.initialisation = 'he', model.activation = 'relu', or fewer layers."
        )
    worst, largest = max(norms, key=lambda pair: pair[1])
    if largest > _EXPLODING:
        return (
            f"Gradients explode: their mean norm in round {worst} was {largest:.2g}. Set"
            " training.max_grad_norm = 1.0, or lower training.learning_rate."
        )
    return ""
