"""Multi-head attention as two linear layers around a product that has no parameters.

Supported: `nn.MultiheadAttention` with `batch_first`, alone or in a transformer layer of torch, on
itself or on another sequence, with masks and dropout. Not supported: `kdim` and `vdim` of another
width, `add_bias_kv`, `add_zero_attn`.

Shapes: B records, L positions that ask, S positions that are asked, E features.
"""

import math
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedtrain.errors import ConfigError
from fedtrain.training.layer_rules import LinearPart
from fedtrain.training.tape import Followed, Rule


class _Attention:
    """Stands in for an `nn.MultiheadAttention`."""

    def __init__(self, name: str, module: nn.MultiheadAttention) -> None:
        self._module, self._name = module, name
        weight = cast("Tensor | None", module.in_proj_weight)
        if weight is None or module.bias_k is not None or module.add_zero_attn:
            raise ConfigError(
                f"model: layer '{name}' uses kdim, vdim, add_bias_kv or add_zero_attn, of which no"
                " per-record gradient is known; leave them out under differential privacy"
            )
        self.projection = LinearPart(name, weight, cast("Tensor | None", module.in_proj_bias))
        self.output = LinearPart(name, module.out_proj.weight, module.out_proj.bias)

    def apply(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the module returns, recorded."""
        if query.dim() != 3:
            raise ConfigError(
                f"model: layer '{self._name}' gets {query.dim()} dimensions; give it (records,"
                " positions, features) under differential privacy"
            )
        if is_causal and attn_mask is None:
            raise ConfigError(f"model: layer '{self._name}' needs attn_mask where is_causal is set")
        parts = [self._split_heads(part) for part in self._project(query, key, value)]
        mask = self._join_masks(query, key_padding_mask, attn_mask)
        dropout = self._module.dropout if self._module.training else 0.0
        weights = None
        if need_weights:
            mixed, weights = _attend(parts, mask, dropout)
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = functional.scaled_dot_product_attention(
                parts[0], parts[1], parts[2], attn_mask=mask, dropout_p=dropout
            )
        return self.output.apply(mixed.transpose(1, 2).flatten(2)), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values, `(B, L or S, E)` each."""
        if query is key and key is value:
            return self.projection.apply(query).chunk(3, 2)
        # One map of all positions, of whose results each uses its third.
        lengths = [len_.shape[1] for len_ in (query, key, value)]
        joined = torch.split(self.projection.apply(torch.cat([query, key, value], 1)), lengths, 1)
        return tuple(part.chunk(3, 2)[number] for number, part in enumerate(joined))

    def _split_heads(self, part: Tensor) -> Tensor:
        """Return `(B, heads, positions, E / heads)`."""
        heads = self._module.num_heads
        return part.view(*part.shape[:2], heads, part.shape[2] // heads).transpose(1, 2)

    def _join_masks(
        self, query: Tensor, padding: Tensor | None, mask: Tensor | None
    ) -> Tensor | None:
        """Return what is added to the products, broadcast to `(B, heads, L, S)`."""
        joined = None
        if mask is not None:
            joined = _to_summand(mask, query.dtype)
            if joined.dim() == 3:
                joined = joined.view(len(query), self._module.num_heads, *joined.shape[1:])
        if padding is not None:
            summand = _to_summand(padding, query.dtype)[:, None, None, :]
            joined = summand if joined is None else joined + summand
        return joined


def _attend(parts: list[Tensor], mask: Tensor | None, dropout: float) -> tuple[Tensor, Tensor]:
    """Return the mixed values and the weights, where the caller wants to see these."""
    query, key, value = parts
    products = (query * (1 / math.sqrt(query.shape[3]))) @ key.transpose(2, 3)
    weights = torch.softmax(products if mask is None else products + mask, 3)
    weights = functional.dropout(weights, dropout) if dropout else weights
    return weights @ value, weights


def _to_summand(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(mask, -math.inf)


def _follow_attention(name: str, module: nn.Module) -> Followed:
    attention = _Attention(name, cast("nn.MultiheadAttention", module))
    return Followed(module, attention.apply, [attention.projection, attention.output])


ATTENTION_RULES: Final[dict[type[nn.Module], Rule]] = {nn.MultiheadAttention: _follow_attention}
