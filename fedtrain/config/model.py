"""The section on the architecture."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fedtrain.config.section import Section


class ModelSection(Section):
    """The architecture."""

    name: str = Field(
        "mlp",
        description=(
            "logistic, mlp, cnn, cnn_groupnorm, cnn_small, resnet, lstm, gru, transformer,"
            " transformer_tabular, gcn, matrix_factorisation, autoencoder, vae, or module:function"
            " that returns an nn.Module."
        ),
    )
    hidden: tuple[int, ...] = Field(
        (32,), description="mlp, lstm, gru, gcn, autoencoder, vae: units of hidden layers."
    )
    activation: (
        Literal[
            "relu",
            "tanh",
            "gelu",
            "silu",
            "leaky_relu",
            "elu",
            "selu",
            "mish",
            "sigmoid",
            "softplus",
        ]
        | None
    ) = Field(
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
    embedding_stddev: float | None = Field(
        None,
        gt=0,
        description=(
            "transformer: standard deviation of the start vectors of tokens and of places alike;"
            " embedding**-0.5 learns faster than the default: torch's 1 for tokens, 0.02 for"
            " places."
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
    start_from: str | None = Field(
        None,
        min_length=1,
        description=(
            "Model to start from: a .safetensors file, a run directory, or a TorchScript file. It"
            " must be public, or covered by a guarantee of its own; this run's does not cover what"
            " it learned before. Default: drawn from run.seed."
        ),
    )
    start_digest: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of that file. Default: what it is when the run starts.",
    )
    reinitialise: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Patterns of tensors not taken from start_from, e.g. ['output*'].",
    )
    freeze: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description=(
            "Patterns of parameters that are not trained and not sent, e.g. ['conv*'], or for a"
            " linear probe ['*', '!output*']."
        ),
    )
    lora: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Patterns of linear layers that only an adapter of low rank is trained of.",
    )
    lora_rank: int | None = Field(
        None, ge=1, le=1024, description="Rank of those adapters; default: 4."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lora_rank is not None and self.lora is None:
            raise ValueError("lora_rank has no effect without model.lora; remove it")
        return self
