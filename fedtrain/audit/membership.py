"""Scores of membership inference: which records was a model trained on?

An attack gives each record a score, higher for a likelier member; `fedtrain.audit.roc` says what
the scores are worth. Loss needs the model alone; LiRA and RMIA compare it with shadow models, that
were trained as it was on random parts of the attacker's own records, each record in some of them.

All three look at a record's margin: the log-odds that the model gives to its true label.

Shapes: m shadow models, n records, c classes.

References:
    Loss threshold: Yeom et al. 2018 (arXiv:1709.01604). LiRA: Carlini et al. 2022
    (arXiv:2112.03570), online, with the variance over all records where shadows are few. RMIA:
    Zarifzadeh et al. 2024 (arXiv:2312.03262), online.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.errors import ConfigError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Fewer shadows with (or without) a record say too little of its own spread: Carlini et al. 2022
# take the spread over all records below about so many.
MIN_FOR_OWN_SPREAD: Final = 32
RMIA_GAMMA: Final = 2.0
MIN_SHADOWS: Final = 4
_MAX_MARGIN: Final = 60.0  # beyond it float64 cannot tell a probability from 1
_PRIOR_MODELS: Final = 8.0  # weight of the records' mean beside a record's own few models


def compute_margins(logits: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return each record's log-odds of its true label, log(p / (1 - p)).

    Args:
        logits: `(n, c)`.
        labels: `(n,)`.

    Returns:
        `(n,)`, within +-60.

    Guarantees:
        * Exact where p rounds to 1: the other classes' probabilities are added up, not 1 - p.
        * A logit that is not finite gives a finite margin, so that one broken record spoils no
          other's score.
    """
    values = np.nan_to_num(np.asarray(logits, np.float64), nan=0.0, posinf=1e6, neginf=-1e6)
    rows = np.arange(len(labels))
    own = values[rows, labels]
    others = values.copy()
    others[rows, labels] = -np.inf
    top = others.max(axis=1, initial=-1e6)
    rest = top + np.log(np.exp(others - top[:, None]).sum(axis=1))
    margins: Floats = np.clip(own - rest, -_MAX_MARGIN, _MAX_MARGIN)
    return margins


def score_by_loss(margins: Floats) -> Floats:
    """Score by the target's loss alone: a record that it fits well is taken for a member.

    Args:
        margins: The target's, `(n,)`.

    Returns:
        `(n,)`; minus the loss.
    """
    scores: Floats = -np.logaddexp(0.0, -margins)
    return scores


def score_by_lira(margins: Floats, shadows: Floats, joined: Bools) -> Floats:
    """Score by LiRA: how much likelier the margin is from models with the record than without.

    Args:
        margins: The target's, `(n,)`.
        shadows: Those of the shadow models, `(m, n)`.
        joined: Whether each shadow was trained with each record, `(m, n)`.

    Returns:
        Log-likelihood ratios, `(n,)`.

    Raises:
        ConfigError: There are too few shadows, or no record is in some and not in others.
    """
    _check_shadows(margins, shadows, joined)
    inside, outside = _estimate_mean(shadows, joined), _estimate_mean(shadows, ~joined)
    inside_var = _estimate_variance(shadows, joined, inside)
    outside_var = _estimate_variance(shadows, ~joined, outside)
    scores: Floats = _log_density(margins, inside, inside_var) - _log_density(
        margins, outside, outside_var
    )
    return scores


def score_by_rmia(
    margins: Floats, shadows: Floats, joined: Bools, *, gamma: float = RMIA_GAMMA
) -> Floats:
    """Score by RMIA: the share of other records that this one outdoes by `gamma`.

    A record's ratio is its probability under the target over its mean probability under the
    shadows with it and without it; it outdoes another record if its ratio is `gamma` times as high.

    Args:
        margins: The target's, `(n,)`.
        shadows: Those of the shadow models, `(m, n)`.
        joined: Whether each shadow was trained with each record, `(m, n)`.
        gamma: At least 1.

    Returns:
        Shares from 0 to 1, `(n,)`, with the ratio's rank as a tie-break below 1 / n.

    Raises:
        ConfigError: As `score_by_lira`.
    """
    _check_shadows(margins, shadows, joined)
    shares = _to_probability(shadows)
    mean = (_estimate_mean(shares, joined) + _estimate_mean(shares, ~joined)) / 2
    ratios = _to_probability(margins) / np.maximum(mean, 1e-12)
    ordered = np.sort(ratios)
    below = np.searchsorted(ordered, ratios / gamma, side="right") / len(ratios)
    # Records that outdo equally many are told apart by the ratio itself.
    ranks = np.searchsorted(ordered, ratios, side="right") / (len(ratios) + 1) / len(ratios)
    scores: Floats = below + ranks
    return scores


def _check_shadows(margins: Floats, shadows: Floats, joined: Bools) -> None:
    if shadows.shape != joined.shape or shadows.shape[1:] != margins.shape:
        raise ConfigError(
            f"margins {margins.shape}, shadows {shadows.shape} and joined {joined.shape} do not fit"
            " together; give (n,), (m, n) and (m, n)"
        )
    if len(shadows) < MIN_SHADOWS:
        raise ConfigError(f"{len(shadows)} shadow models are too few; train {MIN_SHADOWS} or more")
    if joined.all() or not joined.any():
        raise ConfigError("every shadow has every record, or none; train them on random parts")


def _estimate_mean(values: Floats, chosen: Bools) -> Floats:
    """Return each record's mean over the chosen models, `(n,)`, drawn to what is usual.

    What is usual is the record's mean over all models and the mean distance of the chosen from it,
    which is all there is to say of a record that no chosen model has.
    """
    counts = chosen.sum(axis=0)
    centre = values.mean(axis=0)
    usual = float((values - centre)[chosen].mean())
    totals = np.where(chosen, values - centre, 0.0).sum(axis=0)
    means: Floats = centre + (totals + _PRIOR_MODELS * usual) / (counts + _PRIOR_MODELS)
    return means


def _estimate_variance(values: Floats, chosen: Bools, means: Floats) -> Floats:
    """Return each record's variance over the chosen models, or that over all records, `(n,)`."""
    squares = np.where(chosen, (values - means) ** 2, 0.0)
    counts = chosen.sum(axis=0)
    lost = max(1, int(chosen.sum()) - int(np.count_nonzero(counts)))  # a mean a record
    shared = max(float(squares.sum()) / lost, 1e-6)
    own = squares.sum(axis=0) / np.maximum(counts - 1, 1)
    variances: Floats = np.where(counts >= MIN_FOR_OWN_SPREAD, np.maximum(own, 1e-6), shared)
    return variances


def _log_density(values: Floats, means: Floats, variances: Floats) -> Floats:
    density: Floats = -((values - means) ** 2) / (2 * variances) - np.log(variances) / 2
    return density


def _to_probability(margins: Floats) -> Floats:
    probabilities: Floats = 1 / (1 + np.exp(-margins))
    return probabilities
