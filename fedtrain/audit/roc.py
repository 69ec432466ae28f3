"""What scores tell about membership: rates of an attack, its AUC, and their intervals.

Averages over all records hide the few that an attack is sure of; so the share of members found is
given where hardly a non-member is accused (Carlini et al. 2022, section III).

Shapes: t target models, n records, k thresholds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.errors import ConfigError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FALSE_POSITIVE_RATES: Final = (0.001, 0.01)
DRAWS: Final = 400


@dataclass(frozen=True)
class Curve:
    """Rates at every threshold, from "accuse nobody" to "accuse all".

    Attributes:
        false_positive_rates: Share of non-members that are accused, `(k,)`, ascending.
        true_positive_rates: Share of members that are found, `(k,)`, ascending.
    """

    false_positive_rates: Floats
    true_positive_rates: Floats

    @property
    def auc(self) -> float:
        """Area under the curve: chance that a member scores above a non-member."""
        return float(np.trapezoid(self.true_positive_rates, self.false_positive_rates))

    def find_rate(self, false_positive_rate: float) -> float:
        """Return the share of members found where at most so many non-members are accused.

        Nothing is interpolated: it is what one threshold does.
        """
        allowed = np.searchsorted(self.false_positive_rates, false_positive_rate, side="right")
        return float(self.true_positive_rates[allowed - 1])


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rates:
    """What an attack achieves.

    Attributes:
        curve: Of all targets together.
        auc: Area under the curve.
        found: Share of members found, by the share of non-members accused.
    """

    curve: Curve
    auc: Interval
    found: dict[float, Interval]


def compute_curve(scores: Floats, members: Bools) -> Curve:
    """Return the curve of scores.

    Args:
        scores: Of any shape; higher is likelier a member.
        members: Of the same shape.

    Raises:
        ConfigError: There is no member or no non-member, or a score is not a number.
    """
    flat, truth = scores.reshape(-1), members.reshape(-1)
    found = int(np.count_nonzero(truth))
    if not found or found == len(truth):
        raise ConfigError(
            f"{found} of {len(truth)} records are members; an attack is judged by members and"
            " non-members, leave some out of training"
        )
    if np.isnan(flat).any():
        raise ConfigError("a score is not a number; look for a model that diverged")
    order = np.argsort(-flat, kind="stable")
    last = np.flatnonzero(np.append(np.diff(flat[order]) != 0, True))  # equal scores are one
    true, false = np.cumsum(truth[order])[last], np.cumsum(~truth[order])[last]
    return Curve(
        np.append(0.0, false / (len(truth) - found)),
        np.append(0.0, true / found),
    )


def estimate_rates(
    scores: Floats, members: Bools, *, confidence: float, generator: np.random.Generator
) -> Rates:
    """Estimate an attack's rates with intervals.

    Args:
        scores: `(t, n)`.
        members: `(t, n)`; each target needs both kinds.
        confidence: Of the intervals.
        generator: Of the bootstrap.

    Returns:
        Rates over all targets together, and bootstrap percentile intervals. With several targets,
        whole targets are drawn: records of one model are not independent. With one target its
        records are drawn, members and non-members apart, and the interval is for that model.
    """
    whole = compute_curve(scores, members)
    draw = _draw_targets if len(scores) > 1 else _draw_records
    curves = [compute_curve(*draw(scores, members, generator)) for _ in range(DRAWS)]
    return Rates(
        curve=whole,
        auc=_bound(lambda curve: curve.auc, whole, curves, confidence=confidence),
        found={
            rate: _bound(
                lambda curve, rate=rate: curve.find_rate(rate),  # type: ignore[misc]
                whole,
                curves,
                confidence=confidence,
            )
            for rate in FALSE_POSITIVE_RATES
        },
    )


def _bound(
    measure: Callable[[Curve], float], whole: Curve, curves: Sequence[Curve], *, confidence: float
) -> Interval:
    values = [measure(curve) for curve in curves]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    value = measure(whole)
    return Interval(value, min(float(low), value), max(float(high), value))


def _draw_targets(
    scores: Floats, members: Bools, generator: np.random.Generator
) -> tuple[Floats, Bools]:
    drawn = generator.integers(len(scores), size=len(scores))
    return scores[drawn], members[drawn]


def _draw_records(
    scores: Floats, members: Bools, generator: np.random.Generator
) -> tuple[Floats, Bools]:
    parts = [np.flatnonzero(kind.reshape(-1)) for kind in (members, ~members)]
    drawn = np.concatenate([generator.choice(part, len(part)) for part in parts])
    return scores.reshape(-1)[drawn], members.reshape(-1)[drawn]
