"""The section on what a site does in a round."""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from fedtrain.config.schedule import verify_schedule
from fedtrain.config.section import Section

# Where the config names none; PyTorch's (2.13) own.
ADAM_BETAS: Final = (0.9, 0.999)
RMSPROP_ALPHA: Final = 0.99


class TrainingSection(Section):
    """What a site does in a round."""

    optimiser: Literal["sgd", "adam", "adamw", "rmsprop"] = Field(
        "sgd", description="Local optimiser."
    )
    learning_rate: float = Field(0.1, gt=0, description="Local learning rate.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of sgd and rmsprop.")
    nesterov: bool | None = Field(None, description="sgd: Nesterov's momentum. Default: false.")
    adam_betas: tuple[float, float] | None = Field(
        None,
        description=(
            "adam, adamw: how much of the averages of gradients and of their squares each step"
            " keeps. [0.9, 0.999]."
        ),
    )
    rmsprop_alpha: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="rmsprop: how much of the average of squares each step keeps. 0.99.",
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay (L2).")
    l1: float | None = Field(
        None, gt=0, description="Coefficient of the sum of absolute parameters, added to the loss."
    )
    max_grad_norm: float | None = Field(
        None,
        gt=0,
        description="L2 clip of a batch's gradient, without DP-SGD, which clips each record's.",
    )
    loss: Literal["cross_entropy", "focal", "bce", "mse", "mae", "huber", "quantile"] | None = (
        Field(
            None,
            description=(
                "cross_entropy, focal or bce (one against the rest) of classes; bce of labels; mse,"
                " mae, huber or quantile of numbers. Default: the first that fits the task."
            ),
        )
    )
    label_smoothing: float | None = Field(
        None, gt=0, lt=1, description="cross_entropy: share of each label spread over all classes."
    )
    class_weights: tuple[float, ...] | None = Field(
        None,
        description=(
            "cross_entropy, focal: what a record of each class counts in training, in the order of"
            " the classes; fedtrain stats prints balanced ones."
        ),
    )
    focal_gamma: float | None = Field(
        None, ge=1, le=10, description="focal: exponent that makes easy records count less. 2."
    )
    huber_delta: float | None = Field(
        None,
        gt=0,
        description="huber: error above which it grows linearly, in widths of the target. 0.1.",
    )
    quantile: float | None = Field(
        None, gt=0, lt=1, description="quantile: which quantile is predicted. 0.5, the median."
    )
    schedule: Literal["step", "cosine", "plateau"] | None = Field(
        None,
        description=(
            "How the local learning rate falls over the rounds: step, cosine (to 0 at the end), or"
            " plateau (where the validation loss stalls). Default: it does not."
        ),
    )
    schedule_rounds: int | None = Field(
        None, ge=1, description="step: rounds from drop to drop; plateau: rounds without progress."
    )
    schedule_factor: float | None = Field(
        None, gt=0, lt=1, description="step, plateau: what a drop multiplies the rate by. 0.5."
    )
    warmup_rounds: int | None = Field(
        None, ge=1, description="First rounds in which the local learning rate rises linearly."
    )
    gradient_norms: bool | None = Field(
        None,
        description="Send the mean norm of a round's gradients, so that failing ones are seen.",
    )
    mixed_precision: bool | None = Field(
        None, description="Compute losses in bfloat16 where that is safe. Default: false."
    )
    sampling: Literal["shuffle", "poisson"] = Field(
        "shuffle",
        description=(
            "shuffle: batches of a shuffled pass; poisson: each record joins each step with"
            " sample_rate (differential privacy needs it)."
        ),
    )
    local_epochs: int | None = Field(None, ge=1, description="Passes over the local data a round.")
    local_steps: int | None = Field(None, ge=1, description="Optimiser steps a round instead.")
    batch_size: int = Field(32, ge=1, description="shuffle: records a step.")
    sample_rate: float | None = Field(
        None, gt=0, le=1, description="poisson: probability of a record in a step; public."
    )
    expected_batch_size: float | None = Field(
        None,
        gt=0,
        description=(
            "poisson: what the sum of a batch's gradients is divided by; a public constant,"
            " never computed from a shard."
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.local_epochs is not None and self.local_steps is not None:
            raise ValueError(
                f"local_epochs = {self.local_epochs} and local_steps = {self.local_steps} exclude"
                " each other; keep one"
            )
        _check_loss(self)
        _check_optimiser(self)
        verify_schedule(self.schedule, rounds=self.schedule_rounds, factor=self.schedule_factor)
        if self.sampling == "poisson":
            for key in ("sample_rate", "expected_batch_size"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key} is missing; sampling = 'poisson' needs it")
        return self


def _check_optimiser(section: TrainingSection) -> None:
    """Refuse the parameter of an optimiser that is not trained with."""
    name, momentum = section.optimiser, section.momentum
    if section.nesterov and (name != "sgd" or not momentum):
        raise ValueError(
            f"nesterov = true needs momentum of sgd, optimiser = '{name}' with"
            f" momentum = {momentum:g} has none; set momentum = 0.9 or remove it"
        )
    betas = section.adam_betas
    if betas is not None and not (min(betas) >= 0 and max(betas) < 1):
        raise ValueError(
            f"adam_betas = {list(betas)}: both must be at least 0 and below 1; [0.9, 0.999] is"
            " PyTorch's"
        )
    if betas is not None and name not in ("adam", "adamw"):
        raise ValueError(
            f"adam_betas = {list(betas)} has no effect while optimiser = '{name}'; set optimiser ="
            " 'adam' or 'adamw', or remove it"
        )
    alpha = section.rmsprop_alpha
    if alpha is not None and name != "rmsprop":
        raise ValueError(
            f"rmsprop_alpha = {alpha:g} has no effect while optimiser = '{name}'; set optimiser ="
            " 'rmsprop', or remove it"
        )


def _check_loss(section: TrainingSection) -> None:
    """Refuse the parameter of a loss that is not trained with."""
    weights = section.class_weights
    if weights is not None and not (weights and min(weights) >= 0 and max(weights) > 0):
        raise ValueError(
            f"class_weights = {list(weights)}: none may be below 0, and one must be above; 1 leaves"
            " a class as it is"
        )
    if weights is not None and section.loss not in (None, "cross_entropy", "focal"):
        raise ValueError(
            f"class_weights has no effect while loss = '{section.loss}'; set loss ="
            " 'cross_entropy' or 'focal', or remove it"
        )
    for key, owner in (
        ("label_smoothing", "cross_entropy"),
        ("focal_gamma", "focal"),
        ("huber_delta", "huber"),
        ("quantile", "quantile"),
    ):
        value = getattr(section, key)
        # The default loss follows the task; label smoothing goes with that of classes.
        own = (owner,) if owner != "cross_entropy" else (owner, None)
        if value is not None and section.loss not in own:
            shown = "the task's default" if section.loss is None else f"'{section.loss}'"
            raise ValueError(
                f"{key} = {value:g} has no effect while loss = {shown}; set loss = '{owner}' or"
                " remove it"
            )
