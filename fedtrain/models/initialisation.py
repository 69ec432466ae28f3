"""Start weights by the spread of what flows through a layer."""

from collections.abc import Callable
from typing import Final

from torch import Tensor, nn

# Layers whose every matrix is a weight and every vector a bias.
_LAYERS: Final = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.GRU)


def initialise(model: nn.Module, kind: str) -> None:
    """Draw the weights of linear, convolutional and recurrent layers anew; biases become 0.

    Args:
        model: Its other layers stay as they are, and so do attention's queries, keys and values,
            which torch draws by Xavier.
        kind: `xavier`: uniform, so that the variance of activations and of gradients is kept;
            `he`: normal, so that it is kept through ReLUs. From torch's global generator.

    References:
        Glorot, Bengio 2010; He et al. 2015 (arXiv:1502.01852).
    """
    draw: Callable[[Tensor], Tensor] = nn.init.xavier_uniform_
    if kind == "he":
        draw = nn.init.kaiming_normal_
    for module in model.modules():
        if isinstance(module, _LAYERS):
            for parameter in module.parameters(recurse=False):
                if parameter.dim() > 1:
                    draw(parameter)
                else:
                    nn.init.zeros_(parameter)
