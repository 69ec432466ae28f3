"""Fine integer noise costs what Gaussian noise does: shares accounted as one Gaussian.

Claim. Let S = n s be the variance of the sum of n draws from N_Z(0, s), and t = 4. For every
integer vector v at once, the law of v + sum is, to a factor exp(+-A), that of a Gaussian
N(v, (S - t) I) after one fixed randomised rounding, with A at most the number of coordinates x
(T + log(M / m)), where T is `noise_shares`' and M, m are its M_k, m_k at r = exp(-2 pi^2 t).

Proof, one coordinate. Round y to the integer x with weight exp(-(x - y)^2 / 2t). The weights' sum
over x lies between m and M times a constant, by Poisson summation. So the rounded N(v, S - t) has,
at x, the integral over y of exp(-(y - v)^2 / 2(S - t) - (x - y)^2 / 2t), which is a constant times
exp(-(x - v)^2 / 2S), to within a factor of range M / m; the sum's law is exp(-(x - v)^2 / 2S) to
within one of range exp(T). Both are probabilities, so that their ratio is 1 somewhere.

Rounding is post-processing, mixtures over who is sampled pass through it, and the factors of
composed steps multiply. Hence all steps are (epsilon + 2 A, delta exp(A)) where those of the
Gaussian are (epsilon, delta), in every neighbouring relation, and a divergence of order a grows by
at most (2a - 1) / (a - 1) A. From s = 8 on A is below 10^-33 a coordinate, share and step; from
S = 2^16 on the lost t is below 10^-4 of the variance.
"""

import math
from dataclasses import dataclass
from typing import Final

from fedtrain.privacy.events import DistributedDiscreteGaussian, PoissonSampledGaussian
from fedtrain.privacy.noise_shares import compute_log_ripple

_LOST_VARIANCE: Final = 4
_MIN_SHARE_VARIANCE: Final = 8
_MIN_VARIANCE: Final = 2**16


@dataclass(frozen=True)
class Likeness:
    """A Gaussian that stands for noise in shares.

    Attributes:
        gaussian: One step of it.
        slack: A of one step: the logarithm of each probability is off by no more.
    """

    gaussian: PoissonSampledGaussian
    slack: float


def find_likeness(event: DistributedDiscreteGaussian) -> Likeness | None:
    """Return the Gaussian that one step is like, or None where the noise is too coarse for that.

    Guarantees:
        * The Gaussian's noise multiplier is never above sqrt(S - 4) / sensitivity.

    References:
        The idea, that a Gaussian rounded by discrete Gaussian weights is a discrete Gaussian, is
        Peikert's of 2010 for lattices; the module proves what is used of it.
    """
    variance = event.shares * event.share_variance
    if event.share_variance < _MIN_SHARE_VARIANCE or variance < _MIN_VARIANCE:
        return None
    noise = math.sqrt(variance - _LOST_VARIANCE) / event.sensitivity * (1 - 2.0**-50)
    moved = min(float(event.dimension), event.sensitivity * event.sensitivity)
    # Two shares of variance 2 t meet at t: their T is log(M / m).
    ripple = compute_log_ripple(event.share_variance, event.shares)
    ripple += compute_log_ripple(2 * _LOST_VARIANCE, 2)
    return Likeness(PoissonSampledGaussian(noise, event.sample_rate, 1), moved * ripple)
