"""The Rényi divergence of an event, whatever its mechanism."""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedtrain.errors import ConfigError
from fedtrain.privacy.events import (
    DistributedDiscreteGaussian,
    Event,
    Mechanism,
    PoissonSampledGaussian,
    Unprotected,
)
from fedtrain.privacy.noise_shares import compute_shares_rdp
from fedtrain.privacy.renyi import NeighbouringRelation, compute_rdp, compute_rdp_curve
from fedtrain.privacy.smoothing import find_likeness


def compute_event_rdp(
    event: Event, *, order: float, neighbouring_relation: NeighbouringRelation = "add_remove"
) -> float:
    """Compute what all steps of an event cost at most, at one order: for a filter of fixed order.

    Args:
        event: What happened.
        order: Above 1, whole or not.
        neighbouring_relation: What neighbours are.

    Returns:
        The divergence, at least 0; infinite where something was released unprotected.

    Raises:
        TypeError: An event of an unknown type; it is never taken for free.
        ConfigError: The order is not a finite number above 1, or the event has no cost in this
            relation.
    """
    if not 1 < order < math.inf:
        raise ConfigError(f"order = {order:g} is not a finite number above 1; 2 to 64 is usual")
    if isinstance(event, Unprotected):
        return math.inf
    if isinstance(event, PoissonSampledGaussian):
        step = compute_rdp(
            event.noise_multiplier,
            event.sample_rate,
            orders=[order],
            neighbouring_relation=neighbouring_relation,
        )[0]
    elif isinstance(event, DistributedDiscreteGaussian):
        if likeness := find_likeness(event):
            step = compute_event_rdp(
                likeness.gaussian, order=order, neighbouring_relation=neighbouring_relation
            )
            step += (2 * order - 1) / (order - 1) * likeness.slack
        else:
            step = compute_shares_rdp(
                event, orders=[order], neighbouring_relation=neighbouring_relation
            )[0]
    else:
        raise TypeError(f"event of type {type(event).__name__} has no known cost")
    return event.steps * float(step) if event.steps else 0.0


@lru_cache(maxsize=1024)
def compute_mechanism_curve(
    mechanism: Mechanism, neighbouring_relation: NeighbouringRelation
) -> npt.NDArray[np.float64]:
    """Return one step's divergences at `ORDERS`, read-only and remembered.

    Noise in shares is bounded as such, not by the Gaussian that it may be like.
    """
    if isinstance(mechanism, PoissonSampledGaussian):
        return compute_rdp_curve(
            mechanism.noise_multiplier, mechanism.sample_rate, neighbouring_relation
        )
    curve = compute_shares_rdp(mechanism, neighbouring_relation=neighbouring_relation)
    curve.flags.writeable = False
    return curve
