"""A graph convolutional network on small graphs.

A record is one graph: row v of `(k, k + f)` holds node v's weights to all k nodes, then its f
features. A graph with fewer nodes has rows and columns of zeros; a node without weight and feature
is not there.

Shapes: n graphs, k nodes, f features.

References:
    Kipf and Welling 2017 (arXiv:1609.02907): the layer, with loops and symmetric normalisation.
"""

import torch
from torch import Tensor, nn

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.models.feed_forward import read_hidden
from fedtrain.models.layers import make_activation
from fedtrain.models.sizes import Sizes


class GraphNetwork(nn.Module):
    """Graph convolutions, the mean over the nodes, and one linear layer."""

    def __init__(self, section: ModelSection, sizes: Sizes) -> None:
        super().__init__()
        shape = sizes.input_shape
        if len(shape) != 2 or shape[1] <= shape[0]:
            raise ConfigError(
                f"model.name = 'gcn' needs graphs of (nodes, nodes + features), records have shape"
                f" {shape}; put each node's weights to all nodes before its features"
            )
        self.nodes, width = shape[0], shape[1] - shape[0]
        self.layers, self.activations = nn.ModuleList(), nn.ModuleList()
        for units in read_hidden(section):
            self.layers.append(nn.Linear(width, units))
            self.activations.append(make_activation(section))
            width = units
        self.dropout = nn.Dropout(section.dropout or 0.0)
        self.output = nn.Linear(width, sizes.classes)

    def forward(self, graphs: Tensor) -> Tensor:
        """Return logits `(n, classes)` of graphs `(n, k, k + f)`."""
        weights, vectors = graphs[..., : self.nodes], graphs[..., self.nodes :]
        present = (graphs != 0).any(2).to(graphs.dtype)
        mixing = normalise(weights, present)
        for layer, activation in zip(self.layers, self.activations, strict=True):
            vectors = self.dropout(activation(torch.bmm(mixing, layer(vectors))))
        count = present.sum(1, keepdim=True).clamp(min=1)
        logits: Tensor = self.output((vectors * present.unsqueeze(2)).sum(1) / count)
        return logits


def normalise(weights: Tensor, present: Tensor) -> Tensor:
    """Return each graph's `D^-1/2 (A + I) D^-1/2` over the nodes that are there.

    Args:
        weights: A, `(n, k, k)`, not negative.
        present: 1 for a node that is there, else 0, `(n, k)`.
    """
    looped = weights + torch.diag_embed(present)
    scale = looped.sum(2).clamp(min=1.0).rsqrt()
    return scale.unsqueeze(2) * looped * scale.unsqueeze(1)
