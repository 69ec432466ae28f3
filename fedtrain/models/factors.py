"""Matrix factorisation without a parameter a user.

A record is a user's choice: k items that the user knows, then the item in question, all as ids.
The user's vector is the mean of the known items' vectors; its product with the item's, by
features, is read by one linear layer, and each item has a bias. A row of a user alone would be
moved by one site's update alone, so that a sum over sites would hide nothing of it; items are
known everywhere.

Shapes: n records, k known items, e features of a vector, C classes.

References:
    Koren 2008, Factorization meets the neighborhood: users as sums over the items they rated.
    He et al. 2017 (arXiv:1708.05031): the weighted product.
"""

from typing import Final

from torch import Tensor, nn

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.models.sizes import Sizes
from fedtrain.models.tokens import TokenTable

EMBEDDING: Final = 16
START_STDDEV: Final = 0.3  # of vectors: from torch's 1, made-up ratings took three times as long


class MatrixFactorisation(nn.Module):
    """Vectors of known items and of the item in question, and their weighted product."""

    def __init__(self, section: ModelSection, sizes: Sizes) -> None:
        super().__init__()
        if len(sizes.input_shape) != 1 or sizes.input_shape[0] < 2 or not sizes.is_discrete:
            raise ConfigError(
                f"model.name = '{section.name}' needs ids of known items and of one in question,"
                f" records have shape {sizes.input_shape}; set data.source = 'generated:ratings' or"
                " one of your own that gives ids"
            )
        if section.vocabulary is None:
            raise ConfigError(
                f"model.vocabulary is missing and model.name = '{section.name}' needs it; set the"
                " number of items"
            )
        width = section.embedding or EMBEDDING
        self.known = TokenTable(section.vocabulary, width)
        self.items = TokenTable(section.vocabulary, width)
        for table in (self.known, self.items):
            nn.init.normal_(table.table.weight, std=START_STDDEV)
        self.biases = TokenTable(section.vocabulary, sizes.classes)
        nn.init.zeros_(self.biases.table.weight)
        self.dropout = nn.Dropout(section.dropout or 0.0)
        self.output = nn.Linear(width, sizes.classes)

    def forward(self, records: Tensor) -> Tensor:
        """Return logits `(n, C)` of records `(n, k + 1)`."""
        asked = records[:, -1:]  # with a dimension of positions, as an embedding's rule needs it
        products = self.known(records[:, :-1]).mean(1) * self.items(asked)[:, 0]
        logits: Tensor = self.output(self.dropout(products)) + self.biases(asked)[:, 0]
        return logits
