"""How a sequence becomes vectors: token ids by a table, quantities by a linear map.

Shapes: n records, l positions, e features of an embedding.
"""

from typing import Final

from torch import Tensor, nn

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.models.sizes import Sizes

PLACES_STDDEV: Final = 0.02


class TokenTable(nn.Module):
    """A vector an id; an id beyond the table is read as its last, so that no record is refused."""

    def __init__(self, vocabulary: int, width: int, *, stddev: float | None = None) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.table = nn.Embedding(vocabulary, width)
        if stddev is not None:
            nn.init.normal_(self.table.weight, std=stddev)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors `(n, ..., e)` of ids `(n, ...)`."""
        vectors: Tensor = self.table(ids.clamp(0, self.vocabulary - 1))
        return vectors


class Places(nn.Module):
    """Adds to each position a vector of its own."""

    def __init__(self, positions: int, width: int, *, stddev: float | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(positions, width)
        nn.init.normal_(self.table.weight, std=PLACES_STDDEV if stddev is None else stddev)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return `(n, l, e)` with the places' vectors added."""
        placed: Tensor = vectors + self.table(number_positions(vectors))
        return placed


class Steps(nn.Module):
    """Quantities as steps: a series `(n, l)` becomes `(n, l, 1)`, a grey image is read by row."""

    def forward(self, values: Tensor) -> Tensor:
        """Return `(n, l, features)`."""
        if values.dim() == 4:
            return values.squeeze(1)
        return values.unsqueeze(-1) if values.dim() == 2 else values


def number_positions(vectors: Tensor) -> Tensor:
    """Return 0..l-1 for each record of `(n, l, ...)`, `(n, l)`; torch.arange gets no batch."""
    count = vectors.new_ones(vectors.shape[:2]).cumsum(1) - 1
    return count.long()


def read_sequence(section: ModelSection, sizes: Sizes) -> tuple[int, int]:
    """Return the positions of a record, and the features of each.

    Raises:
        ConfigError: Records are no sequences.
    """
    shape = sizes.input_shape
    if len(shape) == 3 and shape[0] == 1 and not sizes.is_discrete:
        shape = shape[1:]
    if len(shape) > (1 if sizes.is_discrete else 2):
        raise ConfigError(
            f"model.name = '{section.name}' needs sequences of (steps,) or (steps, features), or"
            f" grey images, records have shape {shape}; set model.name = 'cnn' or 'mlp'"
        )
    return shape[0], shape[1] if len(shape) == 2 else 1
