"""The DP-SGD gradient of one step, on Opacus' per-record gradients.

Opacus supplies the per-record gradients and the check of the model. Sampling, divisor and noise
are the run plan's public constants and our own: `PrivacyEngine.make_private` computes rate and
divisor from the number of records, so that one record's presence shows in the noise scale.

The only module of the library that imports opacus.

Shapes: B records in the batch, d parameters.
"""

import warnings
from collections.abc import Sequence

import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.nn import functional

from fedtrain.errors import ConfigError
from fedtrain.models.dp_rules import verify_private_model
from fedtrain.plan import RecordPlan
from fedtrain.privacy.generator import SecureGenerator

# Added to each norm before dividing, as Opacus does: a record's clipped norm stays strictly below
# max_grad_norm, so that rounding cannot push it over.
_NORM_FLOOR = 1e-6


class PrivateGradients:
    """Clipped, noised gradients of batches of records (Abadi et al. 2016, algorithm 1).

    Guarantees:
        * Before noise, adding or removing one record changes the sum by at most `max_grad_norm`
          in L2 norm, whatever the record, its loss or its gradient is (NaN and infinity included).
        * The divisor is the plan's `expected_batch_size`, never a batch's or a shard's size.
        * An empty batch gives pure noise of the same deviation.
    """

    def __init__(self, model: nn.Module, plan: RecordPlan) -> None:
        verify_private_model(model)
        problems = ModuleValidator.validate(model, strict=False)
        if problems:
            raise ConfigError(f"model: not possible under differential privacy: {problems[0]}")
        self._plan = plan
        self._module = GradSampleModule(model, loss_reduction="sum", strict=False)
        self._parameters = [p for p in model.parameters() if p.requires_grad]

    def compute(
        self, features: Tensor, labels: Tensor, *, noise: SecureGenerator
    ) -> tuple[list[Tensor], float]:
        """Return the noisy mean gradient of a batch, and the sum of its losses.

        Args:
            features: `(B, *input_shape)`; B may be 0.
            labels: `(B,)`.
            noise: Where the Gaussian noise is drawn from; one draw of d values.

        Returns:
            One gradient a parameter: (clipped sum + noise) / expected_batch_size. The loss sum
            is not protected.
        """
        if len(labels):
            total, loss_sum = self._compute_clipped_sum(features, labels)
        else:
            total, loss_sum = [torch.zeros_like(p) for p in self._parameters], 0.0
        noise_stddev = self._plan.noise_multiplier * self._plan.max_grad_norm
        if noise_stddev:
            sizes = [p.numel() for p in self._parameters]
            draw = noise.draw_normal((sum(sizes),), stddev=noise_stddev)
            for part, piece in zip(total, torch.split(draw, sizes), strict=True):
                part += piece.view_as(part)
        return [part / self._plan.expected_batch_size for part in total], loss_sum

    def _compute_clipped_sum(self, features: Tensor, labels: Tensor) -> tuple[list[Tensor], float]:
        """Return the sum over the batch of each record's gradient, clipped to `max_grad_norm`."""
        with warnings.catch_warnings():
            # A first layer whose input needs no gradient makes torch warn about Opacus' hooks.
            warnings.filterwarnings("ignore", message="Full backward hook")
            loss = functional.cross_entropy(self._module(features), labels, reduction="sum")
            torch.autograd.backward(loss)
        samples = [self._take_samples(parameter) for parameter in self._parameters]
        return clip_and_sum(samples, max_grad_norm=self._plan.max_grad_norm), float(loss.detach())

    @staticmethod
    def _take_samples(parameter: Tensor) -> Tensor:
        samples = getattr(parameter, "grad_sample", None)
        parameter.grad = None
        if samples is None:
            raise ConfigError(
                f"model: Opacus has no per-record gradient for a parameter of shape"
                f" {tuple(parameter.shape)}; use layers that it supports"
            )
        parameter.grad_sample = None  # type: ignore[attr-defined]
        if isinstance(samples, list):  # a layer that ran more than once in the forward pass
            samples = torch.stack(samples).sum(0)
        return samples


def clip_and_sum(samples: Sequence[Tensor], *, max_grad_norm: float) -> list[Tensor]:
    """Clip each record's gradient over all parameters together and add them up.

    Args:
        samples: One tensor `(B, *shape)` a parameter.
        max_grad_norm: L2 bound of a record's whole gradient.

    Returns:
        One tensor `(*shape)` a parameter. A record whose gradient is not finite adds nothing.
    """
    norms = torch.stack([s.flatten(1).norm(2, dim=1) for s in samples]).norm(2, dim=0)
    finite = torch.isfinite(norms)
    factors = torch.where(finite, (max_grad_norm / (norms + _NORM_FLOOR)).clamp(max=1.0), 0.0)
    if not bool(finite.all()):
        # 0 * NaN is NaN: take the record's values out, not only its weight.
        samples = [torch.nan_to_num(s, nan=0.0, posinf=0.0, neginf=0.0) for s in samples]
    return [torch.einsum("b,b...->...", factors, s) for s in samples]
