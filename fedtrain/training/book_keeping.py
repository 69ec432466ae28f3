"""The clipped sum of per-record gradients in one backward pass ("book-keeping").

The pass computes gradients by activations only; each layer's inputs and output gradients give the
records' norms and then, weighted by the clip factors, the sum (Bu et al. 2023). A layer without a
rule of its own is handed to a fallback, alone.

Shapes: B records in the batch, P persons.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedtrain.errors import ConfigError
from fedtrain.training.attention_rule import ATTENTION_RULES
from fedtrain.training.contributions import CANCELLATION, Contribution, Groups, Samples
from fedtrain.training.gradients import run_hooks
from fedtrain.training.layer_rules import LAYER_RULES
from fedtrain.training.losses import Loss
from fedtrain.training.recurrent_rules import RECURRENT_RULES
from fedtrain.training.tape import Followed, Rule, follow

# What a pass holds of all records together, in float32 numbers: 64 MiB. Fewer stay longer in the
# caches, and cost less to have mapped in; each pass costs the layers' calls.
PASS_FLOATS: Final = 2**24
SMALL_PASS: Final = 32
RULES: Final = LAYER_RULES | RECURRENT_RULES | ATTENTION_RULES
# Added to each norm before dividing, as Opacus does; a step of zero norm is defined by it.
NORM_FLOOR: Final = 1e-6
# Norms are raised by this share, more than their float32 rounding.
NORM_MARGIN: Final = 2.0**-20


class BookKeeper:
    """Clipped sums of a model's per-record gradients.

    Guarantees:
        * Each record, or each person where owners are given, adds a vector of L2 norm at most
          `max_grad_norm` to the sum, and nothing if its gradient is not finite; so that one more
          or less changes the sum by no more than that, up to the rounding of float32 additions.
        * A parameter that does not require a gradient, or that the loss does not use, is left out
          or gets zeros. The model's forward functions and parameters are left as they were, an
          error on the way included.

    References:
        Bu et al. 2023, Differentially Private Optimization on Large Model at Small Cost
        (arXiv:2210.00038): book-keeping; Li et al. 2022 (arXiv:2110.05679): ghost norms.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        fallback: Rule | None = None,
        loss: Loss = functional.cross_entropy,
    ) -> None:
        """Follow a model's trainable layers.

        Args:
            model: Its layers' own forward functions are back in place between calls.
            fallback: Follows a layer that has no rule, with everything inside it.
            loss: Gives one number a record, of that record alone.

        Raises:
            ConfigError: A trainable layer has no rule, and there is no fallback or it refuses.
        """
        self._model, self._loss = model, loss
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._layers = list(_follow_layers(model, fallback))
        self._parts = [part for layer in self._layers for part in layer.parts]
        counts: dict[int, int] = {}
        for parameter in (p for part in self._parts for p in part.parameters):
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
        self._tied = {key for key, count in counts.items() if count > 1}
        self._pass_sizes: dict[tuple[torch.Size, torch.dtype], int] = {}

    def compute_clipped_sum(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        max_grad_norm: float,
        owners: Tensor | None = None,
    ) -> tuple[list[Tensor], float]:
        """Return the sum of clipped gradients, and the sum of the finite losses.

        Args:
            features: `(B, *input_shape)`; B may be 0.
            labels: `(B,)`, or what else the loss compares outputs with, one row a record.
            max_grad_norm: L2 bound of what one record or person adds.
            owners: Person of each record, `(B,)` int64: what is clipped is then the mean of a
                person's gradients in this batch. None: each record is its own.

        Returns:
            One tensor for each trainable parameter, in the model's order; the loss sum.

        Raises:
            ConfigError: A layer's input has other than B rows, or is changed in place.
        """
        if owners is not None:
            order = torch.argsort(owners, stable=True)
            features, labels, owners = features[order], labels[order], owners[order]
        total, loss_sum = None, 0.0
        for part in _cut(len(labels), owners, size=self._find_pass_size(features)):
            kept = None if owners is None else owners[part]
            sums, losses = self._compute_part(
                features[part], labels[part], max_grad_norm=max_grad_norm, owners=kept
            )
            loss_sum += losses
            if total is None:
                total = sums
            else:
                torch._foreach_add_(total, sums)
        if total is None:
            total = [torch.zeros_like(parameter) for parameter in self._parameters]
        return total, loss_sum

    def _find_pass_size(self, features: Tensor) -> int:
        """Return how many records one pass takes, so that what it holds stays in bounds.

        It follows from the model and the shape of a record alone: equal batches give equal bytes,
        whatever came before.
        """
        if len(features) <= SMALL_PASS:
            return SMALL_PASS
        key = features.shape[1:], features.dtype
        if key not in self._pass_sizes:
            with torch.random.fork_rng(devices=[]), follow(self._layers, self._parameters):
                self._model(features[:1])
            floats = sum(part.count_floats() for part in self._parts)
            for part in self._parts:
                part.clear()
            most = PASS_FLOATS // max(floats, 1)
            self._pass_sizes[key] = max(SMALL_PASS, 2 ** (most.bit_length() - 1) if most else 0)
        return self._pass_sizes[key]

    def _compute_part(
        self, features: Tensor, labels: Tensor, *, max_grad_norm: float, owners: Tensor | None
    ) -> tuple[list[Tensor], float]:
        """Return clipped sum and sum of losses of some of the records, by one backward pass."""
        losses, found = self._differentiate(features, labels)
        groups = None if owners is None else Groups(owners)
        norms = _compute_norms(found, len(labels), groups)
        loss_sum = _add_up_finite(losses)
        if math.isfinite(norms.sum()) or bool(torch.isfinite(norms).all()):
            weights = _compute_weights(norms, groups, max_grad_norm=max_grad_norm)
            return self._add_up(found, weights), loss_sum
        # NaN times 0 is NaN: the rest is computed again, as if these had not been there.
        finite = torch.isfinite(norms if groups is None else norms[groups.owners])
        sums, _ = self.compute_clipped_sum(
            features[finite],
            labels[finite],
            max_grad_norm=max_grad_norm,
            owners=None if owners is None else owners[finite],
        )
        return sums, loss_sum

    def _differentiate(self, features: Tensor, labels: Tensor) -> tuple[Tensor, list[Contribution]]:
        """Return the losses `(B,)` and what one backward pass leaves of each parameter."""
        try:
            with follow(self._layers, self._parameters):
                losses = self._loss(self._model(features), labels, reduction="none")
                for part in self._parts:
                    part.verify_rows(len(labels))
                if losses.requires_grad:
                    run_hooks(losses)
            found = [contribution for part in self._parts for contribution in part.take()]
        finally:
            for part in self._parts:
                part.clear()
        return losses.detach(), self._join_tied(found) if self._tied else found

    def _join_tied(self, found: list[Contribution]) -> list[Contribution]:
        """Make one contribution of those that several layers have for a parameter they share."""
        alone: list[Contribution] = []
        shared: dict[int, tuple[Tensor, Tensor]] = {}
        for contribution in found:
            if self._tied.isdisjoint(map(id, contribution.parameters)):
                alone.append(contribution)
                continue
            samples = contribution.compute_samples()
            for parameter, values in zip(contribution.parameters, samples, strict=True):
                known = shared.get(id(parameter))
                shared[id(parameter)] = parameter, values if known is None else known[1] + values
        return alone + [Samples(parameter, values) for parameter, values in shared.values()]

    def _add_up(self, found: Sequence[Contribution], weights: Tensor) -> list[Tensor]:
        sums: dict[int, Tensor] = {}
        for contribution in found:
            values = contribution.compute_weighted_sums(weights)
            sums.update(zip(map(id, contribution.parameters), values, strict=True))
        return [
            sums[id(parameter)] if id(parameter) in sums else torch.zeros_like(parameter)
            for parameter in self._parameters
        ]


def _compute_norms(found: Sequence[Contribution], count: int, groups: Groups | None) -> Tensor:
    """Return the norm of each record's gradient `(B,)`, or of each person's mean `(P,)`."""
    if not found:
        return torch.zeros(count if groups is None else len(groups.sizes))
    if groups is None:
        return _join_norms([contribution.compute_norms() for contribution in found])
    sums = _join_norms([contribution.compute_group_norms(groups) for contribution in found])
    # Records of a person can cancel, as positions of a record can: see `contributions`.
    most = groups.add_up(_join_norms([contribution.compute_norms() for contribution in found]))
    return torch.hypot(sums, most * math.sqrt(CANCELLATION)).div_(groups.sizes)


def _compute_weights(norms: Tensor, groups: Groups | None, *, max_grad_norm: float) -> Tensor:
    """Return what each record's gradient is multiplied with, `(B,)`."""
    weights = (norms * (1 + NORM_MARGIN)).add_(NORM_FLOOR).reciprocal_().mul_(max_grad_norm)
    weights.clamp_(max=1.0)
    if groups is None:
        return weights
    return torch.index_select(weights.div_(groups.sizes), 0, groups.owners)


def _add_up_finite(losses: Tensor) -> float:
    total = float(losses.sum())
    if math.isfinite(total):
        return total
    return float(losses.double().nan_to_num_(0.0, 0.0, 0.0).sum())


def _join_norms(norms: Sequence[Tensor]) -> Tensor:
    """Return the norms over all parameters together."""
    if len(norms) == 1:
        return norms[0]
    joined: Tensor = torch.linalg.vector_norm(torch.stack(list(norms)), dim=0)
    return joined


def _cut(count: int, owners: Tensor | None, *, size: int) -> Iterator[slice]:
    """Yield slices of about `size` records each, none of which parts a person's."""
    start = 0
    while start < count:
        stop = min(count, start + size)
        if owners is not None:
            stop = int(torch.searchsorted(owners, owners[stop - 1], right=True))
        yield slice(start, stop)
        start = stop


def _follow_layers(model: nn.Module, fallback: Rule | None) -> Iterator[Followed]:
    """Yield every layer with trainable parameters of its own; what is inside one, with it."""
    seen: set[int] = set()

    def visit(name: str, module: nn.Module) -> Iterator[Followed]:
        if id(module) in seen:
            return
        seen.add(id(module))
        rule = RULES.get(type(module))
        if rule is None and any(p.requires_grad for p in module.parameters(recurse=False)):
            rule = fallback
            if rule is None:
                raise ConfigError(f"model: there is no per-record gradient of {name}")
        if rule is not None:
            if any(p.requires_grad for p in module.parameters()):
                yield rule(name, module)
            return
        for child_name, child in module.named_children():
            yield from visit(f"{name}.{child_name}" if name else child_name, child)

    return visit("", model)
