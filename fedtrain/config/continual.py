"""The section on not forgetting what the start model knew."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fedtrain.config.section import Section

if TYPE_CHECKING:
    from fedtrain.config.whole import Config


class ContinualSection(Section):
    """What keeps a later run near the model that it starts from."""

    pull: float = Field(
        gt=0,
        description=(
            "Strength of a pull of every parameter towards model.start_from, in every step. It"
            " depends on no record: a guarantee of differential privacy is what it was."
        ),
    )
    importance: Literal["equal", "file"] | None = Field(
        None,
        description=(
            "equal: all parameters alike (L2-SP); file: each by the importance that the start file"
            " has of it (elastic weight consolidation), see fedtrain importance. Default: equal."
        ),
    )


def verify_continual(config: "Config") -> None:
    """Refuse a pull towards a start that there is not.

    Raises:
        ValueError: See above.
    """
    if config.continual is not None and config.model.start_from is None:
        if config.model.start_digest is not None:
            return  # a published config, without what is local
        raise ValueError(
            f"continual.pull = {config.continual.pull:g} pulls towards model.start_from, which is"
            " missing; set it or remove [continual]"
        )
