"""One step of training as each contender takes it: the same model, batch, clip and noise.

Opacus is used by the parts that `PrivacyEngine.make_private` puts together, without its data
loader: what is timed is the step.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from fedtrain.plan import RecordPlan
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.training.dp_sgd import PrivateGradients
from fedtrain.training.optimisers import Sgd

from .dp_models import CASES, make_batch

CLIP: Final = 1.0
NOISE: Final = 1.0
RATE: Final = 0.01

Step = Callable[[], None]


def make_plain(name: str, size: int) -> Step:
    """Return a step of SGD as one writes it by hand."""
    model = _build(name, nn.LSTM, nn.MultiheadAttention)
    features, labels = make_batch(name, size)
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)

    def step() -> None:
        optimiser.zero_grad()
        functional.cross_entropy(model(features), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def make_ours(name: str, size: int, *, noise_multiplier: float = NOISE) -> Step:
    """Return a step as a site takes it."""
    model = _build(name, nn.LSTM, nn.MultiheadAttention)
    features, labels = make_batch(name, size)
    plan = RecordPlan(
        noise_multiplier=noise_multiplier,
        sample_rate=0.5,
        steps=1,
        max_grad_norm=CLIP,
        expected_batch_size=float(size),
    )
    gradients = PrivateGradients(model, plan)
    optimiser = Sgd(list(model.parameters()), learning_rate=RATE)
    noise = SecureGenerator.from_seed(0, "bench")

    def step() -> None:
        optimiser.step(gradients.compute(features, labels, noise=noise)[0])

    return step


def load_opacus() -> None:
    """Import all of Opacus that is used here."""
    from opacus import grad_sample, layers, optimizers
    from opacus.utils import fast_gradient_clipping_utils

    del grad_sample, layers, optimizers, fast_gradient_clipping_utils


def make_opacus(name: str, size: int, *, mode: str) -> Step:
    """Return a step by one of Opacus' ways to per-record gradients."""
    warnings.simplefilter("ignore")  # what Opacus and torch say of its hooks
    from opacus.grad_sample import wrap_model
    from opacus.layers import DPLSTM, DPMultiheadAttention
    from opacus.optimizers.optimizer import DPOptimizer

    attention = partial(_make_attention, DPMultiheadAttention)
    model = wrap_model(
        _build(name, DPLSTM, attention), grad_sample_mode=mode, loss_reduction="mean"
    )
    features, labels = make_batch(name, size)
    optimiser = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=RATE),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=size,
    )

    def step() -> None:
        optimiser.zero_grad()
        functional.cross_entropy(model(features), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def make_ghost(name: str, size: int) -> Step:
    """Return a step by Opacus' ghost clipping, which runs backward twice."""
    warnings.simplefilter("ignore")
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.layers import DPLSTM, DPMultiheadAttention
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    attention = partial(_make_attention, DPMultiheadAttention)
    model = GradSampleModuleFastGradientClipping(
        _build(name, DPLSTM, attention), max_grad_norm=CLIP, use_ghost_clipping=True
    )
    features, labels = make_batch(name, size)
    optimiser = DPOptimizerFastGradientClipping(
        torch.optim.SGD(model.parameters(), lr=RATE),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=size,
    )
    criterion = DPLossFastGradientClipping(model, optimiser, nn.CrossEntropyLoss())

    def step() -> None:
        optimiser.zero_grad()
        criterion(model(features), labels).backward()
        optimiser.step()

    return step


CONTENDERS: Final[dict[str, tuple[str, Callable[[str, int], Step]]]] = {
    "plain": ("plain SGD", make_plain),
    "ours": ("fedtrain", make_ours),
    "ours-sum": ("fedtrain without noise", partial(make_ours, noise_multiplier=0.0)),
    "hooks": ("Opacus hooks", partial(make_opacus, mode="hooks")),
    "functorch": ("Opacus functorch", partial(make_opacus, mode="functorch")),
    "ew": ("Opacus ew", partial(make_opacus, mode="ew")),
    "ghost": ("Opacus ghost", make_ghost),
}


def _build(name: str, recurrent: Any, attention: Any) -> nn.Module:
    torch.manual_seed(0)
    return CASES[name].build(recurrent, attention)


def _make_attention(kind: Any, width: int, heads: int, *, batch_first: bool) -> nn.Module:
    """Return Opacus' attention, which takes the batch's dimension and no more."""
    module: nn.Module = kind(width, heads, batch_first=batch_first)
    return module
