"""The section on the architecture."""

from typing import Any, Literal

from pydantic import Field

from fedtrain.config.section import Section


class ModelSection(Section):
    """The architecture."""

    name: str = Field(
        "mlp",
        description=(
            "logistic, mlp, cnn, cnn_groupnorm, cnn_small, or module:function that returns an"
            " nn.Module."
        ),
    )
    hidden: tuple[int, ...] = Field((32,), description="mlp: units of hidden layers.")
    activation: Literal["relu", "tanh", "gelu", "silu"] | None = Field(
        None, description="Activation of hidden layers. Default: tanh for cnn_small, else relu."
    )
    options: dict[str, Any] = Field(
        {}, description="Keyword arguments for a module:function of your own."
    )
