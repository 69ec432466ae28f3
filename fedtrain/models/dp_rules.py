"""What record-level differential privacy forbids a model.

DP-SGD bounds what one record can do to a gradient by clipping that record's own gradient. That
bound holds only where a record's logits depend on no other record of the batch, and where no
buffer keeps statistics of the records outside the clipped and noised gradient.

`verify_private_model` reads the layers' kinds; `verify_records_independent` runs the model and
finds what the kinds do not show. Neither proves a module safe whose behaviour depends on values
that were not tried.
"""

import copy
from typing import Final

import torch
from torch import nn

# torch has no public name for what BatchNorm1d, 2d, 3d and SyncBatchNorm have in common.
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fedtrain.errors import ConfigError

TOLERANCE: Final = 1e-5  # relative; the same kernel on the same shapes differs by less
_BATCH_FIRST: Final = (nn.RNNBase, nn.MultiheadAttention)


def verify_private_model(model: nn.Module) -> None:
    """Refuse layers that mix records or keep statistics of them.

    Args:
        model: The module, on any device, in any mode.

    Raises:
        ConfigError: A layer is forbidden; names it and what to use instead.

    Guarantees:
        Every submodule is looked at, however deep. A BatchNorm is refused in evaluation mode and
        with frozen parameters too: training mode is one call away.
    """
    for name, module in model.named_modules():
        reason = _find_objection(module)
        if reason:
            layer = f"layer '{name}'" if name else "the model itself"
            raise ConfigError(
                f"model: {layer} ({type(module).__name__}) {reason} under privacy.unit = 'record'"
            )


def verify_records_independent(model: nn.Module, inputs: torch.Tensor) -> None:
    """Refuse a model in which one record's logits depend on another, or a buffer on any.

    The model runs in training mode on a batch, and again with all records but the first replaced
    by copies of the first. The first record's logits and every buffer must stay the same. It works
    on a copy; the model and the global random state are left as they were.

    Args:
        model: A module on the CPU.
        inputs: `(n, ...)`, at least 2 records, public or random, that differ from each other.

    Raises:
        ValueError: There are fewer than 2 records, or they are all equal.
        ConfigError: The logits or a buffer changed.
    """
    if len(inputs) < 2 or bool((inputs == inputs[:1]).all()):
        raise ValueError("inputs: at least 2 different records are needed")
    trial = copy.deepcopy(model).train()
    buffers = {name: buffer.clone() for name, buffer in trial.named_buffers()}
    logits = _run_seeded(trial, inputs)
    for name, buffer in trial.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            raise ConfigError(
                f"model: buffer '{name}' changes with the records it sees, without clipping or"
                " noise; remove it, or use GroupNorm for BatchNorm, under privacy.unit = 'record'"
            )
    alone = _run_seeded(trial, inputs[:1].expand_as(inputs).contiguous())
    scale = float(logits[0].abs().max().clamp(min=1.0))
    if not torch.allclose(logits[0], alone[0], rtol=0.0, atol=TOLERANCE * scale):
        raise ConfigError(
            "model: a record's logits change with the other records of its batch, so that clipping"
            " bounds nothing; compute each record alone under privacy.unit = 'record'"
        )


def _find_objection(module: nn.Module) -> str | None:
    if isinstance(module, _InstanceNorm):
        if module.track_running_stats:
            return "keeps running statistics of records; set track_running_stats=False"
        return None
    if isinstance(module, _BatchNorm):
        return "mixes the records of a batch; use torch.nn.GroupNorm"
    if isinstance(module, _BATCH_FIRST) and not module.batch_first:
        return "takes the second dimension for the batch and mixes the first; set batch_first=True"
    if isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmin) and module.dim == 0:
        return "normalises over the records of a batch; set dim=1 or dim=-1"
    if isinstance(module, nn.Flatten) and module.start_dim == 0:
        return "joins the records of a batch; set start_dim=1"
    return None


def _run_seeded(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)  # the same dropout in both runs
        logits: torch.Tensor = model(inputs)
    return logits
