"""What the events cost: epsilon at a delta, with everything that the number rests on.

`compute_cost` is a pure function of the multiset of events: order, grouping and the moment of
asking change nothing. `Odometer` asks it again after each round. Repeated questions are answered
from caches, so that a thousand sites with the same history cost one computation.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal, get_args

import numpy as np

from fedtrain.errors import ConfigError
from fedtrain.privacy.event_rdp import compute_mechanism_curve
from fedtrain.privacy.events import (
    DistributedDiscreteGaussian,
    Event,
    Mechanism,
    PoissonSampledGaussian,
    Unprotected,
)
from fedtrain.privacy.renyi import ORDERS, NeighbouringRelation, convert_to_epsilon
from fedtrain.privacy.smoothing import find_likeness

Accountant = Literal["pld", "rdp"]
Unit = Literal["record", "person", "site"]
DISCRETISATION: Final = 1e-3
# Below this delta the rounding of the Fourier transforms is no longer small beside it.
_MIN_PLD_DELTA: Final = 1e-12
_TAIL_DELTA: Final = 1e-15
_MAX_BINS: Final = 4e6
_MAX_STEPS: Final = 2_000_000
_MAX_REACH: Final = 500.0
# Rounding a step's loss to the grid adds at most discretisation^2 / 4 to its variance: this share
# of the composed loss's reach, over the square root of the steps, keeps that below 0.5 %.
_REACH_SHARE: Final = 0.0125
_DENSE_STEPS: Final = 20_000  # 2 to this power is far above any limit of sparse distributions

Segment = tuple[Mechanism, int]  # the event with one step, and how many


@dataclass(frozen=True)
class PrivacyCost:
    """An epsilon and all that it means.

    Attributes:
        epsilon: At least 0; `math.inf` where something was released unprotected.
        delta: The delta that epsilon is for.
        neighbouring_relation: `add_remove`: one unit more or less (a site: its update, or zeros
            in its place); `replace_one`: one unit exchanged, up to about twice as costly.
        accountant: What computed it: `pld` (privacy loss distribution, Connect the Dots) or `rdp`
            (Rényi), also where `pld` was asked for and could not answer.
        discretisation: Width of the privacy loss distribution's grid; None where it has none. The
            grid only ever rounds epsilon up.
        unit: What is protected.
    """

    epsilon: float
    delta: float
    neighbouring_relation: NeighbouringRelation
    accountant: Accountant
    discretisation: float | None = None
    unit: Unit = "record"


def compute_cost(
    events: Iterable[Event],
    *,
    delta: float,
    neighbouring_relation: NeighbouringRelation = "add_remove",
    accountant: Accountant = "pld",
    discretisation: float = DISCRETISATION,
    unit: Unit = "record",
) -> PrivacyCost:
    """Compute the epsilon of all events together, at one delta.

    Args:
        events: What happened, in any order.
        delta: Between 0 and 1, both excluded.
        neighbouring_relation: What neighbours are.
        accountant: `pld` is tight; `rdp` is a faster upper bound, 2 to 30 % above it. `pld`
            answers with `rdp`, and says so, where delta is below 1e-12, steps are more than two
            million, epsilon is so large (in the hundreds; at 1e-4 above 100) that the grid
            would need millions of points, or noise in shares is too coarse to be accounted as a
            Gaussian (shares of variance below 8, or their sum below 2^16).
        discretisation: Widest grid of `pld`; halved until many or small steps fit it, else their
            rounding adds up (at a fixed 1e-3 to 5 % after 30,000 steps). On the reference vectors
            the default is at most 0.0035 and 0.15 % above 1e-4, which equals the reference there;
            a new answer takes 10 to 170 ms, at 1e-4 30 to 720 ms.
        unit: What the events' sensitivities are for; carried into the answer.

    Returns:
        The cost. No events, no steps or sample rate 0 cost 0; an unprotected update, or any step
        without noise, costs infinity.

    Raises:
        TypeError: An event of an unknown type; it is never taken for free.
        ConfigError: An argument out of its range.

    Guarantees:
        * Epsilon is never below the mechanism's own: the grid is pessimistic (a coarser one is
          never below a finer one), Rényi is above both.
        * Equal totals give the very same number: one event of 8 steps or 8 of one, in any order.
        * Epsilon does not fall with more steps, a higher sample rate or less noise, but for 0.2 %
          or 0.0001, the larger of the two, where the grid's width changes.
        * Epsilon is at least 0 and never NaN.

    References:
        Koskela et al. 2020; Doroshenko et al. 2022, "Connect the Dots" (arXiv:2207.04380), as
        implemented in dp-accounting. Both directions of add_remove are composed and the larger
        epsilon is taken, as Lebeda et al. 2024 (arXiv:2405.20769) show is needed. Noise in
        shares: `fedtrain.privacy.smoothing`; where too coarse, `fedtrain.privacy.noise_shares`.
    """
    odometer = Odometer(
        delta=delta,
        neighbouring_relation=neighbouring_relation,
        accountant=accountant,
        discretisation=discretisation,
        unit=unit,
    )
    for event in events:
        odometer.record(event)
    return odometer.compute_cost()


class Odometer:
    """One site's cost over its whole life in a run, asked for as often as wanted.

    Guarantees:
        * After any sequence of `record`, `compute_cost` equals the function `compute_cost` of all
          recorded events, to the bit.
    """

    def __init__(
        self,
        *,
        delta: float,
        neighbouring_relation: NeighbouringRelation = "add_remove",
        accountant: Accountant = "pld",
        discretisation: float = DISCRETISATION,
        unit: Unit = "record",
    ) -> None:
        """Start at zero; the arguments are those of the function `compute_cost`."""
        _check_arguments(delta, neighbouring_relation, accountant, discretisation)
        if unit not in get_args(Unit):
            raise ConfigError(f"unit = {unit!r} is not known; set record, person or site")
        self._delta = delta
        self._relation: NeighbouringRelation = neighbouring_relation
        self._accountant: Accountant = accountant
        self._discretisation = discretisation
        self._unit: Unit = unit
        self._steps: Counter[Mechanism] = Counter()
        self._unprotected = False

    def record(self, event: Event) -> None:
        """Add an event; see the function `compute_cost` for what it raises."""
        if isinstance(event, Unprotected):
            self._unprotected = True
        elif isinstance(event, PoissonSampledGaussian | DistributedDiscreteGaussian):
            if event.steps and event.sample_rate:
                self._steps[replace(event, steps=1)] += event.steps
                self._unprotected |= _is_silent(event)
        else:
            raise TypeError(f"event of type {type(event).__name__} has no known cost")

    def compute_cost(self) -> PrivacyCost:
        """Compute the cost of everything recorded so far."""
        segments = None if self._unprotected else _order_segments(self._steps)
        epsilon, used, width = _compute_epsilon(
            segments, self._delta, self._relation, self._accountant, self._discretisation
        )
        return PrivacyCost(epsilon, self._delta, self._relation, used, width, self._unit)


def _check_arguments(delta: float, relation: str, accountant: str, discretisation: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(f"delta = {delta:g} is not between 0 and 1; 1e-5 is usual")
    if relation not in get_args(NeighbouringRelation):
        raise ConfigError(
            f"neighbouring_relation = {relation!r} is not known; set add_remove or replace_one"
        )
    if accountant not in get_args(Accountant):
        raise ConfigError(f"accountant = {accountant!r} is not known; set pld or rdp")
    if not 1e-6 <= discretisation <= 0.1:
        raise ConfigError(
            f"discretisation = {discretisation:g} is not between 1e-6 and 0.1; 1e-3 is the default"
        )


def _is_silent(mechanism: Mechanism) -> bool:
    """Say whether a mechanism adds no noise."""
    if isinstance(mechanism, PoissonSampledGaussian):
        return mechanism.noise_multiplier == 0
    return mechanism.share_variance == 0


def _order_segments(steps: Counter[Mechanism]) -> tuple[Segment, ...]:
    """Return mechanisms and their steps in one canonical order."""
    return tuple(sorted(steps.items(), key=lambda item: (type(item[0]).__name__, astuple(item[0]))))


@lru_cache(maxsize=4096)
def _compute_epsilon(
    segments: tuple[Segment, ...] | None,
    delta: float,
    relation: NeighbouringRelation,
    accountant: Accountant,
    discretisation: float,
) -> tuple[float, Accountant, float | None]:
    """Return epsilon, the accountant that gave it, and its grid's width."""
    if segments is None:
        return math.inf, accountant, None
    if sum(steps * mechanism.sample_rate for mechanism, steps in segments) <= delta:
        return 0.0, accountant, None  # no record is likely enough to be sampled at all
    gaussians, coarse, slack = _find_gaussians(segments)
    rdp = np.zeros(len(ORDERS))
    for mechanism, steps in (*gaussians, *coarse):
        rdp += steps * compute_mechanism_curve(mechanism, relation)
    delta *= math.exp(-slack)
    bound = 2 * slack + convert_to_epsilon(rdp, delta=delta)
    reach = convert_to_epsilon(rdp, delta=_TAIL_DELTA)
    total_steps = sum(steps for _, steps in segments)
    longest = min(_MAX_REACH, _MAX_BINS / 2 * discretisation)
    affordable = reach <= longest and total_steps <= _MAX_STEPS
    affordable &= not coarse
    if accountant == "rdp" or delta < _MIN_PLD_DELTA or not affordable:
        return bound, "rdp", None
    if bound == 2 * slack:
        return bound, "pld", None
    width = _choose_width(reach, total_steps, discretisation)
    epsilon = max(0.0, _compose_pld(gaussians, relation, width, delta))
    return 2 * slack + epsilon, "pld", width


def _find_gaussians(
    segments: tuple[Segment, ...],
) -> tuple[list[tuple[PoissonSampledGaussian, int]], list[Segment], float]:
    """Return the Gaussians that the segments are, or are like; the others; and all slack."""
    gaussians: list[tuple[PoissonSampledGaussian, int]] = []
    coarse: list[Segment] = []
    slack = 0.0
    for mechanism, steps in segments:
        if isinstance(mechanism, PoissonSampledGaussian):
            gaussians.append((mechanism, steps))
        elif likeness := find_likeness(mechanism):
            gaussians.append((likeness.gaussian, steps))
            slack += steps * likeness.slack
        else:
            coarse.append((mechanism, steps))
    return gaussians, coarse, slack


def _choose_width(reach: float, steps: int, discretisation: float) -> float:
    """Halve the grid's width until rounding the losses of all steps is small beside their reach."""
    width = discretisation
    while width * math.sqrt(steps) > _REACH_SHARE * reach:
        width /= 2
    return width


def _compose_pld(
    segments: list[tuple[PoissonSampledGaussian, int]],
    relation: NeighbouringRelation,
    width: float,
    delta: float,
) -> float:
    total: Any = None
    for mechanism, steps in segments:
        part = _build_pld(mechanism.noise_multiplier, mechanism.sample_rate, relation, width)
        part = _to_dense(part) if steps > _DENSE_STEPS else part
        part = part.self_compose(steps) if steps > 1 else part
        total = part if total is None else total.compose(part)
    return float(total.get_epsilon_for_delta(delta))


def _to_dense(part: Any) -> Any:
    """Return the distribution as arrays, which it becomes in any case when composed so often.

    dp-accounting decides so by an integer power with the number of steps as its exponent: a second
    at 10^6 steps.
    """
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    remove, add = part._pmf_remove, part._pmf_add
    return PrivacyLossDistribution(
        remove.to_dense_pmf(), None if add is remove else add.to_dense_pmf()
    )


@lru_cache(maxsize=64)
def _build_pld(
    noise_multiplier: float, sample_rate: float, relation: NeighbouringRelation, width: float
) -> Any:
    # Imported here: it takes 0.8 s, which runs without privacy need not spend.
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution

    relations = {
        "add_remove": NeighboringRelation.ADD_OR_REMOVE_ONE,
        "replace_one": NeighboringRelation.REPLACE_ONE,
    }
    return privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier,
        sampling_prob=sample_rate,
        value_discretization_interval=width,
        use_connect_dots=True,
        neighboring_relation=relations[relation],
    )
