"""Bounds of a probability and of a standard deviation from a sample, valid at every size of it."""

import math

from scipy.stats import beta, chi2

from fedtrain.errors import ConfigError


def bound_proportion_below(successes: int, trials: int, *, confidence: float) -> float:
    """Return a lower bound of a probability of success (Clopper-Pearson).

    Args:
        successes: Of `trials` independent trials.
        trials: At least 0.
        confidence: Of this one-sided bound.

    Returns:
        The bound, 0 to 1; 0 where there was no success.

    Raises:
        ConfigError: An argument out of its range.

    Guarantees:
        * Whatever the probability is, the bound exceeds it with probability at most
          1 - confidence.

    References:
        Clopper, Pearson 1934; the quantile of the beta distribution that it equals.
    """
    _check_counts(successes, trials, confidence)
    if successes == 0:
        return 0.0
    return float(beta.ppf(1 - confidence, successes, trials - successes + 1))


def bound_proportion_above(successes: int, trials: int, *, confidence: float) -> float:
    """Return an upper bound of a probability of success; see `bound_proportion_below`."""
    _check_counts(successes, trials, confidence)
    return 1 - bound_proportion_below(trials - successes, trials, confidence=confidence)


def compute_proportion_interval(
    successes: int, trials: int, *, confidence: float
) -> tuple[float, float]:
    """Return the two-sided Clopper-Pearson interval of a probability of success."""
    side = (1 + confidence) / 2
    return (
        bound_proportion_below(successes, trials, confidence=side),
        bound_proportion_above(successes, trials, confidence=side),
    )


def compute_stddev_interval(
    sum_of_squares: float, draws: int, *, confidence: float
) -> tuple[float, float]:
    """Return the two-sided interval of the standard deviation of Gaussian draws of mean 0.

    Args:
        sum_of_squares: Of the draws.
        draws: Their number, at least 1.
        confidence: Between 0 and 1, both excluded.

    Raises:
        ConfigError: An argument out of its range.

    Guarantees:
        * For independent draws of N(0, s^2) each end is beyond s with probability
          (1 - confidence) / 2, exactly: sum / s^2 is chi-squared with `draws` degrees of freedom.
    """
    if not (sum_of_squares >= 0 and draws >= 1 and 0 < confidence < 1):
        raise ConfigError(
            f"sum_of_squares = {sum_of_squares:g}, draws = {draws}, confidence = {confidence:g}:"
            " at least 0, at least 1, and a number between 0 and 1 are needed"
        )
    side = (1 - confidence) / 2
    high, low = chi2.ppf(side, draws), chi2.isf(side, draws)
    return math.sqrt(sum_of_squares / low), math.sqrt(sum_of_squares / high)


def _check_counts(successes: int, trials: int, confidence: float) -> None:
    if not (0 <= successes <= trials and 0 < confidence < 1):
        raise ConfigError(
            f"{successes} successes of {trials} trials, confidence = {confidence:g}: no more"
            " successes than trials, and a number between 0 and 1 are needed"
        )
