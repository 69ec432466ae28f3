"""Networks that read a sequence step by step or all at once, and say what comes next.

`forward` gives logits at the last position. Where `model.predict = "every"`, it gives in training
`Predictions` at each position, from that and those before it alone: so one record trains as many
predictions as it has positions.

Shapes: n records, l positions, e features, C classes.

References:
    Hochreiter and Schmidhuber 1997: LSTM. Cho et al. 2014 (arXiv:1406.1078): GRU.
    Vaswani et al. 2017 (arXiv:1706.03762): transformer; here normalised before each part.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.models.feed_forward import read_hidden
from fedtrain.models.layers import resolve_activation
from fedtrain.models.sizes import Sizes
from fedtrain.models.tokens import Places, Steps, TokenTable, read_sequence

EMBEDDING: Final = 16
WIDTH: Final = 32
FORWARD_FACTOR: Final = 4  # of a transformer's inner layer, as in its paper
_ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "silu": nn.functional.silu,
    "leaky_relu": nn.functional.leaky_relu,
    "elu": nn.functional.elu,
    "selu": nn.functional.selu,
    "mish": nn.functional.mish,
    "sigmoid": torch.sigmoid,
    "softplus": nn.functional.softplus,
}


class Predictions(NamedTuple):
    """What a model predicts at each position, and what comes after each but the last.

    Attributes:
        logits: `(n, l, C)`.
        following: Ids `(n, l - 1)`; after the last position comes the record's label.
    """

    logits: Tensor
    following: Tensor


class SequenceModel(nn.Module, ABC):
    """What maps a sequence to a vector a position, and each vector to logits."""

    output: nn.Linear

    def __init__(self, section: ModelSection, sizes: Sizes) -> None:
        super().__init__()
        self._predicts_every = section.predict == "every"
        if self._predicts_every and section.vocabulary not in (None, sizes.classes):
            raise ConfigError(
                f"model.predict = 'every' needs a class for each id, model.vocabulary ="
                f" {section.vocabulary} and {sizes.classes} classes differ; remove model.vocabulary"
            )
        if self._predicts_every and not sizes.is_discrete:
            raise ConfigError(
                "model.predict = 'every' needs records of ids; set 'last' for quantities"
            )

    @abstractmethod
    def read(self, inputs: Tensor) -> Tensor:
        """Return `(n, l, e)`; what is at a position follows from it and those before it."""

    def forward(self, inputs: Tensor) -> Tensor | Predictions:
        """Return logits at the last position, `(n, C)`; or in training those at every."""
        if self.training and self._predicts_every:
            return Predictions(self.predict_positions(inputs), inputs[:, 1:])
        logits: Tensor = self.output(self.read(inputs)[:, -1])
        return logits

    def predict_positions(self, inputs: Tensor) -> Tensor:
        """Return logits at each position, `(n, l, C)`."""
        logits: Tensor = self.output(self.read(inputs))
        return logits


class Recurrent(SequenceModel):
    """An embedding or the steps as they are, recurrent layers, and one linear layer."""

    def __init__(self, section: ModelSection, sizes: Sizes) -> None:
        super().__init__(section, sizes)
        _, width = read_sequence(section, sizes)
        hidden = read_hidden(section)
        if not hidden:
            raise ConfigError(f"model.hidden = [] leaves model.name = '{section.name}' no layer")
        self.start: nn.Module = Steps()
        if sizes.is_discrete:
            width = section.embedding or EMBEDDING
            self.start = TokenTable(section.vocabulary or sizes.classes, width)
        kind = nn.LSTM if section.name == "lstm" else nn.GRU
        self.layers = nn.ModuleList()
        for units in hidden:
            self.layers.append(kind(width, units, batch_first=True))
            width = units
        self.dropout = nn.Dropout(section.dropout or 0.0)
        self.output = nn.Linear(width, sizes.classes)

    def read(self, inputs: Tensor) -> Tensor:
        """See `SequenceModel`."""
        vectors: Tensor = self.start(inputs)
        for layer in self.layers:
            vectors = self.dropout(layer(vectors)[0])
        return vectors


class Transformer(SequenceModel):
    """Token and place embeddings, blocks of masked self-attention, and one linear layer."""

    def __init__(self, section: ModelSection, sizes: Sizes) -> None:
        super().__init__(section, sizes)
        positions, features = read_sequence(section, sizes)
        width = section.embedding or WIDTH
        if sizes.is_discrete:
            size, stddev = section.vocabulary or sizes.classes, section.embedding_stddev
            self.start: nn.Module = TokenTable(size, width, stddev=stddev)
        else:
            self.start = nn.Sequential(Steps(), nn.Linear(features, width))
        self.places = Places(positions, width, stddev=section.embedding_stddev)
        self.blocks = make_blocks(section, width)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, sizes.classes)

    def read(self, inputs: Tensor) -> Tensor:
        """See `SequenceModel`."""
        vectors: Tensor = self.places(self.start(inputs))
        length = vectors.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=inputs.device).triu(1)
        for block in self.blocks:
            vectors = block(vectors, src_mask=later)
        normalised: Tensor = self.norm(vectors)
        return normalised


def make_blocks(section: ModelSection, width: int) -> nn.ModuleList:
    """Return the blocks of a transformer.

    Raises:
        ConfigError: The heads do not divide the width.
    """
    heads = section.heads or min(4, width)
    if width % heads:
        raise ConfigError(
            f"model.heads = {heads} does not divide model.embedding = {width}; change one"
        )
    return nn.ModuleList(
        nn.TransformerEncoderLayer(
            width,
            heads,
            FORWARD_FACTOR * width,
            section.dropout or 0.0,
            activation=_ACTIVATIONS[resolve_activation(section)],
            batch_first=True,
            norm_first=True,
        )
        for _ in range(section.layers or 2)
    )
