"""Histograms of scores, and what can be read off them: ranking and calibration.

Shapes: n records, K scored classes, B = `BINS` bins over `-LOG_ODDS_LIMIT` to `LOG_ODDS_LIMIT`.

References:
    AUC as the Mann-Whitney statistic, half a pair's credit for a tie: Hanley, McNeil 1982.
    Average precision: the step-wise sum of scikit-learn's `average_precision_score`.
    Expected calibration error: Guo et al. 2017 (arXiv:1706.04599), here of each class's own
    probability and averaged over classes (class-wise; Nixon et al. 2019, arXiv:1904.01685).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

BINS: Final = 512
LOG_ODDS_LIMIT: Final = 16.0  # beyond, a probability is within 1.1e-7 of 0 or 1
CALIBRATION_BINS: Final = 15

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def count_scores(scores: Floats, members: npt.NDArray[np.bool_]) -> Counts:
    """Return how many records fall into each bin, `(K, 2, B)`: non-members (0) and members (1).

    Args:
        scores: `(n, K)`, finite; beyond the limits they count as at them.
        members: `(n, K)`, whether a record is of the class.
    """
    scored = scores.shape[1]
    clipped = np.clip(scores, -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)
    bins = ((clipped + LOG_ODDS_LIMIT) * (BINS / (2 * LOG_ODDS_LIMIT))).astype(np.int64)
    np.minimum(bins, BINS - 1, out=bins)
    cells = (np.arange(scored) * 2 + members) * BINS + bins
    return np.bincount(cells.ravel(), minlength=scored * 2 * BINS).reshape(scored, 2, BINS)


def compute_auc(histograms: Counts) -> float | None:
    """Return the mean over the classes that have members and non-members, None without one."""
    others = histograms[:, 0].astype(np.float64)
    members = histograms[:, 1].astype(np.float64)
    below = np.cumsum(others, axis=1) - others / 2  # half credit within a bin
    pairs = others.sum(axis=1) * members.sum(axis=1)
    defined = pairs > 0
    if not defined.any():
        return None
    return float(((members * below).sum(axis=1)[defined] / pairs[defined]).mean())


def compute_average_precision(histograms: Counts) -> float | None:
    """Return the mean over the classes that have a member, None without one.

    All records of a bin are taken at once, as equal scores are.
    """
    members = histograms[:, 1, ::-1].astype(np.float64)
    every = histograms.sum(axis=1)[:, ::-1].astype(np.float64)
    found, taken = np.cumsum(members, axis=1), np.cumsum(every, axis=1)
    total = found[:, -1]
    defined = total > 0
    if not defined.any():
        return None
    precision = found / np.maximum(taken, 1)
    return float(((members * precision).sum(axis=1)[defined] / total[defined]).mean())


def compute_calibration_error(histograms: Counts) -> float | None:
    """Return the expected calibration error over 15 bins of probability, None without a record.

    A bin's probability is that of its middle: off by at most 1/64 of log-odds, 0.8 % of p (1 - p).
    """
    width = 2 * LOG_ODDS_LIMIT / BINS
    middles = -LOG_ODDS_LIMIT + width * (np.arange(BINS) + 0.5)
    probabilities = 1 / (1 + np.exp(-middles))
    group = np.minimum((probabilities * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    every = histograms.sum(axis=1).astype(np.float64)
    records = every.sum(axis=1)
    if not records.any():
        return None
    surplus = histograms[:, 1] - every * probabilities
    gaps = np.zeros((len(histograms), CALIBRATION_BINS))
    np.add.at(gaps.T, group, surplus.T)
    return float((np.abs(gaps).sum(axis=1)[records > 0] / records[records > 0]).mean())


def compute_recall_at(histograms: Counts, false_alarms: float) -> float | None:
    """Return the share of members above the score that a share of non-members is above.

    The threshold lies between bins: the lowest at which no more non-members are above it.
    """
    others, members = (histograms[0, kind, ::-1].astype(np.float64) for kind in (0, 1))
    if not others.sum() or not members.sum():
        return None
    allowed = np.cumsum(others) <= false_alarms * others.sum()
    return float(members[allowed].sum() / members.sum())
