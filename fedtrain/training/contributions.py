"""Per-record gradients in the form in which a layer's norm and clipped sum are cheapest.

A contribution holds what a backward pass left of one layer. It gives the norm of each record's
part of the gradient, and a weighted sum over records.

Rounding is part of the guarantee. Where a record's gradient is a sum over positions, positions can
cancel: the sum can be tiny beside its terms, and its computed norm, or what it leaves in the
total, is then an error of rounding. Hence a gradient is either made first, so that norm and total
are of the same numbers (`Samples`, `Rows`), or it has one term (`Outer`), or a bound of what
rounding can leave is added to its norm (`Positions`).

Shapes: B records, P persons, T positions of a record, i inputs and o outputs of a layer.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

# Added to norms of float32 vectors that will be multiplied with large ones: bounds what squaring
# small numbers loses.
_TINY: Final = 2.0**-60
_ONE: Final = torch.ones(())
# Where a norm is of a sum that is not made first, it is raised by this share of the sum of its
# terms' norms, both squared: more than what terms that cancel leave in a float32 sum.
CANCELLATION: Final = 2.0**-22


class Contribution(Protocol):
    """Every record's gradient for some parameters."""

    @property
    def parameters(self) -> Sequence[Tensor]:
        """What the gradients are for, in the order of `compute_weighted_sums`."""

    def compute_norms(self) -> Tensor:
        """Return each record's L2 norm over the parameters, `(B,)`, not too small."""

    def compute_group_norms(self, groups: "Groups") -> Tensor:
        """Return the L2 norm of each person's sum over their records, `(P,)`."""

    def compute_weighted_sums(self, weights: Tensor) -> list[Tensor]:
        """Return for each parameter the sum over records of weight times gradient.

        Args:
            weights: `(B,)`, finite; so must be the gradients.
        """

    def compute_samples(self) -> list[Tensor]:
        """Return for each parameter the records' gradients, `(B, *shape)`."""


class Groups:
    """Which person each record is of; a person's records follow each other.

    Attributes:
        owners: Person of each record, `(B,)` int64, sorted.
        sizes: Records of each person, `(P,)` int64, at least 1.
    """

    def __init__(self, owners: Tensor) -> None:
        """Take persons `(B,)` int64 that are sorted; they are numbered anew, without gaps."""
        _, self.owners, self.sizes = torch.unique_consecutive(
            owners, return_inverse=True, return_counts=True
        )

    def add_up(self, values: Tensor) -> Tensor:
        """Return the sums of `(B, ...)` over each person's records, `(P, ...)`."""
        total = values.new_zeros((len(self.sizes), *values.shape[1:]))
        return total.index_add_(0, self.owners, values)

    def slices(self) -> Iterator[slice]:
        """Yield where each person's records are."""
        start = 0
        for size in self.sizes.tolist():
            yield slice(start, start + size)
            start += size


class Samples:
    """Gradients that have been made, one tensor a record."""

    def __init__(self, parameter: Tensor, values: Tensor) -> None:
        """Take the gradients `(B, *shape)` of one parameter."""
        self.parameters: Sequence[Tensor] = (parameter,)
        self._values = values

    def compute_norms(self) -> Tensor:
        """See `Contribution`."""
        return _norms(self._values)

    def compute_group_norms(self, groups: Groups) -> Tensor:
        """See `Contribution`."""
        return _norms(groups.add_up(self._values))

    def compute_weighted_sums(self, weights: Tensor) -> list[Tensor]:
        """See `Contribution`."""
        shape = self._values.shape[1:]
        return [torch.mv(self._values.flatten(1).t(), weights).view(shape)]

    def compute_samples(self) -> list[Tensor]:
        """See `Contribution`."""
        return [self._values]


class Outer:
    """Gradients of a linear map with one position a record: products of two vectors."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, inputs: Tensor, gradients: Tensor
    ) -> None:
        """Take inputs `(B, i)` and the loss's gradients by outputs `(B, o)`."""
        self.parameters: Sequence[Tensor] = (weight,) if bias is None else (weight, bias)
        self._inputs, self._gradients = inputs, gradients

    def compute_norms(self) -> Tensor:
        """See `Contribution`."""
        inputs, gradients = _norms(self._inputs), _norms(self._gradients).add_(_TINY)
        if len(self.parameters) == 2:
            inputs = torch.hypot(inputs, _ONE)  # the bias has an input of 1
        return inputs.mul_(gradients)

    def compute_group_norms(self, groups: Groups) -> Tensor:
        """See `Contribution`."""
        found = []
        for part in groups.slices():
            norm = (self._gradients[part].t() @ self._inputs[part]).norm()
            if len(self.parameters) == 2:
                norm = torch.hypot(norm, self._gradients[part].sum(0).norm())
            found.append(norm)
        return torch.stack(found)

    def compute_weighted_sums(self, weights: Tensor) -> list[Tensor]:
        """See `Contribution`."""
        sums = [(self._gradients * weights.unsqueeze(1)).t() @ self._inputs]
        if len(self.parameters) == 2:
            sums.append(torch.mv(self._gradients.t(), weights))
        return sums

    def compute_samples(self) -> list[Tensor]:
        """See `Contribution`."""
        samples = [self._gradients.unsqueeze(2) * self._inputs.unsqueeze(1)]
        return [*samples, self._gradients][: len(self.parameters)]


class Positions:
    """Gradients of a linear map with several positions a record, which are never made.

    The squared norm is the sum over pairs of positions of two products ("ghost norm"): less work
    than the gradient itself where it has many more elements than there are pairs.

    References:
        Li et al. 2022 (arXiv:2110.05679): ghost clipping.
    """

    def __init__(self, weight: Tensor, *, inputs: Tensor, gradients: Tensor) -> None:
        """Take inputs `(B, T, i)` and the loss's gradients by outputs `(B, T, o)`."""
        self.parameters: Sequence[Tensor] = (weight,)
        self._inputs, self._gradients = inputs, gradients

    @staticmethod
    def is_cheaper(positions: int, *, inputs: int, outputs: int) -> bool:
        """Say whether this takes less time than `Samples`; the factor was measured."""
        return positions * positions * (inputs + outputs) < 4 * inputs * outputs

    def compute_norms(self) -> Tensor:
        """See `Contribution`."""
        # In float64, so that what remains of positions that cancel is not an error of rounding.
        products, others = map(_multiply_pairs, (self._inputs, self._gradients))
        lengths = products.diagonal(dim1=1, dim2=2) * others.diagonal(dim1=1, dim2=2)
        most = lengths.sqrt().sum(1).square_()
        squares = products.mul_(others).sum((1, 2)).clamp_(min=0.0)
        return squares.add_(most, alpha=CANCELLATION).sqrt_().float()

    def compute_group_norms(self, groups: Groups) -> Tensor:
        """See `Contribution`."""
        pairs = ((self._inputs[part], self._gradients[part]) for part in groups.slices())
        return torch.stack([(g.flatten(0, 1).t() @ a.flatten(0, 1)).norm() for a, g in pairs])

    def compute_weighted_sums(self, weights: Tensor) -> list[Tensor]:
        """See `Contribution`."""
        gradients = self._gradients * weights[:, None, None]
        return [gradients.flatten(0, 1).t() @ self._inputs.flatten(0, 1)]

    def compute_samples(self) -> list[Tensor]:
        """See `Contribution`."""
        return [torch.bmm(self._gradients.transpose(1, 2), self._inputs)]


class Rows:
    """Gradients of a table's rows, of which a record has touched few."""

    def __init__(self, table: Tensor, ids: Tensor, gradients: Tensor) -> None:
        """Take the rows' numbers `(B, T)` and the gradients by what was read, `(B, T, o)`."""
        self.parameters: Sequence[Tensor] = (table,)
        records = torch.arange(len(ids)).unsqueeze(1).expand_as(ids)
        self._count = len(ids)
        self._records, self._ids, self._rows = self._collect(
            records.reshape(-1), ids.reshape(-1), gradients.flatten(0, 1)
        )

    def compute_norms(self) -> Tensor:
        """See `Contribution`."""
        return _add_rows(self._count, self._records, _norms(self._rows).square_()).sqrt_()

    def compute_group_norms(self, groups: Groups) -> Tensor:
        """See `Contribution`."""
        owners = groups.owners.index_select(0, self._records)
        owners, _, rows = self._collect(owners, self._ids, self._rows)
        return _add_rows(len(groups.sizes), owners, _norms(rows).square_()).sqrt_()

    def compute_weighted_sums(self, weights: Tensor) -> list[Tensor]:
        """See `Contribution`."""
        rows = self._rows * weights.index_select(0, self._records).unsqueeze(1)
        return [_add_rows(len(self.parameters[0]), self._ids, rows)]

    def compute_samples(self) -> list[Tensor]:
        """See `Contribution`."""
        samples = self._rows.new_zeros((self._count, *self.parameters[0].shape))
        return [samples.index_put_((self._records, self._ids), self._rows)]

    def _collect(self, records: Tensor, ids: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add up what has both record and id in common."""
        size = len(self.parameters[0])
        keys, positions = torch.unique(records * size + ids, return_inverse=True)
        return keys // size, keys % size, _add_rows(len(keys), positions, rows)


def _multiply_pairs(vectors: Tensor) -> Tensor:
    """Return the products of all pairs of `(B, T, k)`, `(B, T, T)` float64."""
    exact = vectors.double()
    return torch.bmm(exact, exact.transpose(1, 2))


def _add_rows(count: int, positions: Tensor, rows: Tensor) -> Tensor:
    return rows.new_zeros((count, *rows.shape[1:])).index_add_(0, positions, rows)


def _norms(values: Tensor) -> Tensor:
    """Return the L2 norm of each row `(B, ...)`, `(B,)`."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms
