"""The named architectures, and which keys of the config each reads.

Each builder returns a module that maps a batch `(n, *input_shape)` of float32, or where it reads
ids of int64, to logits `(n, classes)`, for any n, 0 included. None has a buffer or a layer that
mixes records, so that each can be trained under differential privacy and over several sites at
once.
"""

from collections.abc import Callable
from typing import Final

from torch import nn

from fedtrain.config import ModelSection
from fedtrain.models.autoencoders import VariationalAutoencoder, build_autoencoder
from fedtrain.models.convolutional import build_cnn, build_cnn_groupnorm, build_cnn_small
from fedtrain.models.factors import MatrixFactorisation
from fedtrain.models.feed_forward import build_logistic, build_mlp
from fedtrain.models.graphs import GraphNetwork
from fedtrain.models.residual import build_resnet
from fedtrain.models.sequences import Recurrent, Transformer
from fedtrain.models.sizes import Sizes
from fedtrain.models.tabular import TabularTransformer

Builder = Callable[[ModelSection, Sizes], nn.Module]

ARCHITECTURES: Final[dict[str, Builder]] = {
    "logistic": build_logistic,
    "mlp": build_mlp,
    "cnn": build_cnn,
    "cnn_groupnorm": build_cnn_groupnorm,
    "cnn_small": build_cnn_small,
    "resnet": build_resnet,
    "lstm": Recurrent,
    "gru": Recurrent,
    "transformer": Transformer,
    "transformer_tabular": TabularTransformer,
    "gcn": GraphNetwork,
    "matrix_factorisation": MatrixFactorisation,
    "autoencoder": build_autoencoder,
    "vae": VariationalAutoencoder,
}
# Keys beside name that an architecture reads where they are set.
_BLOCKS: Final = ("embedding", "layers", "heads", "dropout")
KEYS: Final[dict[str, tuple[str, ...]]] = {
    "logistic": (),
    "mlp": ("dropout",),
    "cnn": ("dropout",),
    "cnn_groupnorm": ("dropout",),
    "cnn_small": ("dropout",),
    "resnet": ("layers", "dropout"),
    "lstm": ("vocabulary", "embedding", "predict", "dropout"),
    "gru": ("vocabulary", "embedding", "predict", "dropout"),
    "transformer": ("vocabulary", "predict", "embedding_stddev", *_BLOCKS),
    "transformer_tabular": _BLOCKS,
    "gcn": ("dropout",),
    "matrix_factorisation": ("vocabulary", "embedding", "dropout"),
    "autoencoder": ("dropout",),
    "vae": ("dropout",),
}
READS_HIDDEN: Final = frozenset({"mlp", "lstm", "gru", "gcn", "autoencoder", "vae"})
READS_IDS: Final = frozenset({"lstm", "gru", "transformer", "matrix_factorisation"})
WITHOUT_ACTIVATION: Final = frozenset({"logistic", "lstm", "gru", "matrix_factorisation"})
