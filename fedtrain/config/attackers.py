"""The section on sites of a simulation that attack the training."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fedtrain.config.section import Section


class AttackersSection(Section):
    """Sites of a simulation that attack the training; a deployed site refuses such a config."""

    share: float | None = Field(
        None, gt=0, lt=1, description="Share of the sites, drawn from the seed; or sites."
    )
    sites: tuple[str, ...] | None = Field(None, description="Names of the sites instead.")
    kind: Literal["label_flip", "sign_flip", "scaling"] = Field(
        description=(
            "label_flip: label c becomes C - 1 - c in training; sign_flip: the update times"
            " -factor; scaling: the update times factor."
        )
    )
    factor: float = Field(1.0, gt=0, description="sign_flip, scaling: see kind.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.share is None) == (not self.sites):
            raise ValueError("share and sites: give one of the two, e.g. share = 0.2")
        if self.kind == "label_flip" and self.factor != 1:
            raise ValueError(
                f"factor = {self.factor:g} has no effect on kind = 'label_flip'; remove it, or"
                " choose sign_flip or scaling"
            )
        return self
