"""What is added to a gradient that depends on no record: FedProx's pull, SCAFFOLD's correction.

It is added after the noise of DP-SGD, so that it changes neither a clip nor a guarantee.

References:
    FedProx: Li et al. 2018, equation 2. SCAFFOLD: Karimireddy et al. 2020, algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Pull:
    """What is added to the gradient of each parameter.

    Attributes:
        mu: Coefficient of the proximal term mu/2 |w - anchor|^2; 0 is none.
        anchor: What it pulls towards, one tensor a parameter.
        correction: Added as it is, one tensor a parameter; empty is none.
    """

    mu: float = 0.0
    anchor: Sequence[Tensor] = field(default=(), repr=False)
    correction: Sequence[Tensor] = field(default=(), repr=False)

    def add(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the gradients with both terms; where there are none, the same."""
        if self.mu:
            gradients = [
                g + self.mu * (p.detach() - a)
                for g, p, a in zip(gradients, parameters, self.anchor, strict=True)
            ]
        if self.correction:
            gradients = [g + c for g, c in zip(gradients, self.correction, strict=True)]
        return gradients
