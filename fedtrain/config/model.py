"""The section on the architecture."""

from typing import Any, Literal

from pydantic import Field

from fedtrain.config.section import Section


class ModelSection(Section):
    """The architecture."""

    name: str = Field(
        "mlp",
        description=(
            "logistic, mlp, cnn, cnn_groupnorm, cnn_small, resnet, lstm, gru, transformer,"
            " transformer_tabular, gcn, matrix_factorisation, or module:function that returns an"
            " nn.Module."
        ),
    )
    hidden: tuple[int, ...] = Field(
        (32,), description="mlp, lstm, gru, gcn: units of hidden layers."
    )
    activation: Literal["relu", "tanh", "gelu", "silu"] | None = Field(
        None,
        description=(
            "Activation of hidden layers. Default: tanh for cnn_small, gelu for transformers, else"
            " relu."
        ),
    )
    initialisation: Literal["xavier", "he"] | None = Field(
        None,
        description="Start weights of linear and convolution layers. Default: torch's own.",
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Share of hidden units left out in training; default: none."
    )
    embedding: int | None = Field(
        None,
        ge=1,
        description=(
            "Width of a token's vector. Default: 16 for lstm, gru and matrix_factorisation, 32 for"
            " transformers."
        ),
    )
    vocabulary: int | None = Field(
        None,
        ge=2,
        description="How many ids a model of text or items can read; default: the classes.",
    )
    predict: Literal["last", "every"] | None = Field(
        None,
        description=(
            "lstm, gru, transformer on text: train on what follows the last position, or on what"
            " follows every one; tested is the last. Default: last."
        ),
    )
    layers: int | None = Field(
        None,
        ge=1,
        description="Blocks: of a transformer (default 2), or of each stage of a resnet (1).",
    )
    heads: int | None = Field(
        None, ge=1, description="Attention heads of a transformer; default: 4."
    )
    options: dict[str, Any] = Field(
        {}, description="Keyword arguments for a module:function of your own."
    )
