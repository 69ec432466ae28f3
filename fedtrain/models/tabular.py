"""A transformer over the columns of a table.

Shapes: n records, f features, e the width.

References:
    Gorishniy et al. 2021 (arXiv:2106.11959): FT-Transformer. Here each feature's two vectors are
    rows of tables, so that a record's gradient is known to the book-keeping step.
"""

import torch
from torch import Tensor, nn

from fedtrain.config import ModelSection
from fedtrain.models.sequences import WIDTH, make_blocks
from fedtrain.models.sizes import Sizes
from fedtrain.models.tokens import number_positions


class TabularTransformer(nn.Module):
    """Each feature is a token: its value times a vector, plus another; a first token is read."""

    def __init__(self, section: ModelSection, sizes: Sizes) -> None:
        super().__init__()
        width = section.embedding or WIDTH
        self.flatten = nn.Flatten()
        self.factors = nn.Embedding(sizes.features + 1, width)
        self.summands = nn.Embedding(sizes.features + 1, width)
        for table in (self.factors, self.summands):
            nn.init.normal_(table.weight, std=width**-0.5)
        self.blocks = make_blocks(section, width)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, sizes.classes)

    def forward(self, records: Tensor) -> Tensor:
        """Return logits `(n, classes)` of records `(n, *input_shape)`."""
        values = self.flatten(records)
        values = torch.cat([torch.ones_like(values[:, :1]), values], 1)
        places = number_positions(values)
        vectors = values.unsqueeze(2) * self.factors(places) + self.summands(places)
        for block in self.blocks:
            vectors = block(vectors)
        logits: Tensor = self.output(self.norm(vectors[:, 0]))
        return logits
