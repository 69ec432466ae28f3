"""The DP-SGD gradient of one step: clipped sum, noise, public divisor.

Sampling, divisor and noise are the run plan's public constants and our own. Opacus computes both
rate and divisor from the number of records in `PrivacyEngine.make_private`, so that one record's
presence shows in the noise scale; here it only supplies per-record gradients of layers that have
no rule in `fedtrain.training.layer_rules`, and is imported only where a model has one (1.3 s).

The only module of the library that imports opacus.

Shapes: B records in the batch, d parameters.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedtrain.errors import ConfigError
from fedtrain.models.dp_rules import verify_private_model
from fedtrain.plan import RecordPlan
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.training.book_keeping import BookKeeper
from fedtrain.training.contributions import Contribution, Samples
from fedtrain.training.losses import Loss
from fedtrain.training.tape import Followed, Part

Sampler = Callable[[Tensor, Tensor], dict[Tensor, Tensor]]


class PrivateGradients:
    """Clipped, noised gradients of batches of records (Abadi et al. 2016, algorithm 1).

    Guarantees:
        * Before noise, adding or removing one record, or where owners are given all records of
          one person, changes the sum by at most `max_grad_norm` in L2 norm, whatever the records,
          their losses or gradients are (NaN and infinity included).
        * The divisor is the plan's `expected_batch_size`, never a batch's or a shard's size.
        * An empty batch gives pure noise of the same deviation.
        * Gradients are all that a batch leaves: a model whose buffers it changed gives none.
    """

    def __init__(
        self, model: nn.Module, plan: RecordPlan, *, loss: Loss = functional.cross_entropy
    ) -> None:
        self._plan = plan
        self._keeper = make_book_keeper(model, loss=loss)
        self._sizes = [p.numel() for p in model.parameters() if p.requires_grad]
        self._model, self._has_buffers = model, any(True for _ in model.buffers())

    def compute(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        noise: SecureGenerator,
        owners: Tensor | None = None,
    ) -> tuple[list[Tensor], float]:
        """Return the noisy mean gradient of a batch, and the sum of its losses.

        Args:
            features: `(B, *input_shape)`; B may be 0.
            labels: `(B,)`.
            noise: Where the Gaussian noise is drawn from; one draw of d values.
            owners: Which person each record is of, `(B,)` int64; the unit that is clipped is then
                the mean of a person's gradients in the batch. None: each record.

        Returns:
            One gradient a parameter: (clipped sum + noise) / expected_batch_size. The loss sum
            leaves out losses that are not finite, and is not protected.

        Raises:
            ConfigError: A buffer of the model follows the records.
        """
        plan = self._plan
        held = self._copy_buffers()
        total, loss_sum = self._keeper.compute_clipped_sum(
            features, labels, max_grad_norm=plan.max_grad_norm, owners=owners
        )
        _verify_unchanged(held, self._copy_buffers())
        flat = torch.cat([part.reshape(-1) for part in total])
        noise_stddev = plan.noise_multiplier * plan.max_grad_norm
        if noise_stddev:
            flat += noise.draw_normal((len(flat),), stddev=noise_stddev)
        flat /= plan.expected_batch_size
        pieces = torch.split(flat, self._sizes)
        return [piece.view_as(part) for piece, part in zip(pieces, total, strict=True)], loss_sum

    def _copy_buffers(self) -> dict[str, Tensor]:
        if not self._has_buffers:
            return {}
        return {name: buffer.clone() for name, buffer in self._model.named_buffers()}


def _verify_unchanged(held: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Refuse a buffer that a batch changed: it would leave, and guide later steps, without noise.

    The rules of `dp_rules` know BatchNorm by its kind, and find others by made-up records; here
    are the real ones.
    """
    for name, before in held.items():
        if not torch.allclose(before, found[name], rtol=0.0, atol=0.0, equal_nan=True):
            raise ConfigError(
                f"model: buffer '{name}' changes with the records it sees, without clipping or"
                " noise; remove it, or use GroupNorm for BatchNorm, under privacy.unit = 'record'"
            )


def make_book_keeper(model: nn.Module, *, loss: Loss = functional.cross_entropy) -> BookKeeper:
    """Return what makes clipped sums of a model's gradients, of a loss that is a sum over records.

    Raises:
        ConfigError: The model breaks a rule of differential privacy, or has a layer of which
            nobody knows per-record gradients.
    """
    verify_private_model(model)
    return BookKeeper(model, fallback=follow_with_opacus, loss=loss)


class _OpacusPart(Part):
    """All parameters of a layer that Opacus makes the per-record gradients of."""

    def __init__(self, name: str, module: nn.Module, sampler: Sampler) -> None:
        super().__init__(name, [p for p in module.parameters() if p.requires_grad])
        self._module, self._forward, self._sampler = module, module.forward, sampler

    def apply(self, *inputs: Any, **options: Any) -> Tensor:
        """Return the layer's output, recorded."""
        if len(inputs) != 1 or options or not isinstance(inputs[0], Tensor):
            raise ConfigError(
                f"model: {describe(self.name, self._module)} takes more than one tensor, which"
                " Opacus cannot differentiate for each record; build it from layers of torch.nn"
            )
        output = self._forward(*inputs)
        return self.watch(output if output.requires_grad else output.clone(), inputs[0])

    def count_down(self) -> None:
        """Wait for the end of the pass: Opacus looks at which parameters require a gradient."""

    def derive(self, uses: Sequence[tuple[Tensor, Tensor]]) -> list[Contribution]:
        """See `Part`."""
        totals: dict[Tensor, Tensor] = {}
        for inputs, gradients in uses:
            for parameter, values in self._sampler(inputs, gradients).items():
                if parameter.requires_grad:
                    known = totals.get(parameter)
                    totals[parameter] = values if known is None else known + values
        return [Samples(parameter, values) for parameter, values in totals.items()]


def follow_with_opacus(name: str, module: nn.Module) -> Followed:
    """Follow a layer, with everything inside it, by Opacus' per-record gradients.

    Raises:
        ConfigError: Opacus' validator refuses the layer.
    """
    from opacus.validators import ModuleValidator

    problems = ModuleValidator.validate(module, strict=False)
    if problems:
        reason = str(problems[0]).splitlines()[0]
        raise ConfigError(
            f"model: {describe(name, module)} is not possible under differential privacy: {reason}"
        )
    try:
        part = _OpacusPart(name, module, _make_sampler(module))
    except NotImplementedError as error:
        raise ConfigError(
            f"model: {describe(name, module)} has no per-record gradient ({error}); use layers of"
            " torch.nn"
        ) from error
    return Followed(module, part.apply, [part])


def _make_sampler(module: nn.Module) -> Sampler:
    from opacus import GradSampleModule
    from opacus.grad_sample.functorch import prepare_layer

    known = GradSampleModule.GRAD_SAMPLERS.get(type(module))
    if known is not None:
        return lambda inputs, gradients: known(module, [inputs], gradients)
    prepare_layer(module)
    differentiate = vars(module).pop("ft_compute_sample_grad")
    parameters = list(module.parameters())

    def sample(inputs: Tensor, gradients: Tensor) -> dict[Tensor, Tensor]:
        return dict(zip(parameters, differentiate(parameters, inputs, gradients), strict=True))

    return sample


def describe(name: str, module: nn.Module) -> str:
    """Return a layer's name and kind, for a message."""
    return f"layer '{name}' ({type(module).__name__})" if name else f"a {type(module).__name__}"
