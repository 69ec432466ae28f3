"""The section on what a site does in a round."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fedtrain.config.section import Section


class TrainingSection(Section):
    """What a site does in a round."""

    optimiser: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Local optimiser.")
    learning_rate: float = Field(0.1, gt=0, description="Local learning rate.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay.")
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
        if self.sampling == "poisson":
            for key in ("sample_rate", "expected_batch_size"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key} is missing; sampling = 'poisson' needs it")
        return self
