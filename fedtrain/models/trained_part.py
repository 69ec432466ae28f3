"""Which parameters of a model are trained: freezing by name, and adapters of low rank.

What is frozen keeps its start value. It is in no gradient, no update and no noise, and leaves no
site: the flat vector has the trained parameters alone, so that clipping and noise of differential
privacy are spent on those. Coordinator and sites make the frozen part each for themselves, from
the run's seed or from the file of `model.start_from`.

References:
    LoRA: Hu et al. 2021 (arXiv:2106.09685). Under DP-SGD: Yu et al. 2021 (arXiv:2110.06500).
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import torch
from torch import Tensor, nn

from fedtrain.config import ModelSection
from fedtrain.data.frames import suggest_name
from fedtrain.errors import ConfigError

DEFAULT_RANK: Final = 4
ADAPTERS: Final = ("lora_a.weight", "lora_b.weight")


class LowRankLinear(nn.Linear):
    """A frozen linear layer, and beside it a trained product of two of low rank.

    It is at first what the layer was: `lora_b` starts at zero. The two factors are layers of their
    own, so that per-record gradients know them as such.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        has_bias = layer.bias is not None
        super().__init__(layer.in_features, layer.out_features, bias=has_bias, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.lora_a = nn.Linear(layer.in_features, rank, bias=False)
        self.lora_b = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.lora_b.weight)
        # TransformerEncoderLayer reads its layers without a call, but for those that have a hook.
        self.register_forward_hook(_see)

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output and the factors' together, `(..., out_features)`."""
        outputs: Tensor = super().forward(input) + self.lora_b(self.lora_a(input))
        return outputs


def _see(module: nn.Module, inputs: object, output: object) -> None:
    del module, inputs, output


def choose_trained(model: nn.Module, section: ModelSection, example: Tensor) -> None:
    """Freeze what the config freezes, and put its adapters in; nothing where it has neither.

    Args:
        model: The model; changed in place.
        section: The config's `model` section.
        example: A batch of the model's inputs.

    Raises:
        ConfigError: A pattern fits no parameter or linear layer, nothing is left to train, or an
            adapter would not be in the model's output.
    """
    if section.freeze is not None:
        chosen = match_names([name for name, _ in model.named_parameters()], section.freeze)
        for name, parameter in model.named_parameters():
            if name in chosen:
                parameter.requires_grad_(False)
    if section.lora is not None:
        _put_adapters(model, section.lora, rank=section.lora_rank or DEFAULT_RANK, example=example)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            f"model.freeze = {list(section.freeze or ())} leaves nothing to train; leave out a"
            " layer, e.g. freeze = ['*', '!output*'], or name one in model.lora"
        )


def match_names(
    names: Sequence[str], patterns: Iterable[str], *, key: str = "model.freeze"
) -> set[str]:
    """Return the names that patterns choose; of several that fit a name the last decides.

    Args:
        names: All names.
        patterns: Shell patterns; after `!`, what is not chosen after all.
        key: The config key, for the message.

    Raises:
        ConfigError: A pattern fits no name.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        fitting = {name for name in names if fnmatchcase(name, bare)}
        if not fitting:
            raise ConfigError(
                f"{key}: '{pattern}' fits nothing of this model; {suggest_name(bare, names)}"
            )
        chosen = chosen - fitting if pattern.startswith("!") else chosen | fitting
    return chosen


def has_frozen_part(section: ModelSection) -> bool:
    """Say whether the config leaves parameters untrained."""
    return section.freeze is not None or section.lora is not None


def _put_adapters(
    model: nn.Module, patterns: tuple[str, ...], *, rank: int, example: Tensor
) -> None:
    # Not its subclasses: what MultiheadAttention holds is read and never called.
    layers = {name: m for name, m in model.named_modules() if type(m) is nn.Linear and name}
    if not layers:
        raise ConfigError("model.lora: this model has no linear layer; remove model.lora")
    for name in sorted(match_names(list(layers), patterns, key="model.lora")):
        layer = layers[name]
        smaller = min(layer.in_features, layer.out_features)
        if rank > smaller:
            raise ConfigError(
                f"model.lora_rank = {rank} is above {smaller}, the rank of layer '{name}' itself;"
                " lower it or leave the layer out of model.lora"
            )
        for parameter in layer.parameters():
            parameter.requires_grad_(False)
        adapted = LowRankLinear(layer, rank)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, adapted)
        _verify_used(model, adapted, name, example=example)


def _verify_used(model: nn.Module, layer: LowRankLinear, name: str, *, example: Tensor) -> None:
    """Refuse an adapter that the output does not depend on: some read a layer without a call."""
    was_training = model.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        layer.lora_b.weight.fill_(torch.nan)
        outputs = model.eval()(example)
        layer.lora_b.weight.zero_()
    model.train(was_training)
    if not bool(torch.isnan(outputs).any()):
        raise ConfigError(
            f"model.lora: layer '{name}' is not called where the model is evaluated; leave it out"
            " of model.lora"
        )
