"""The section on fewer bytes a round, and on smaller models."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from fedtrain.config.section import Section

if TYPE_CHECKING:
    from fedtrain.config.whole import Config


class CompressionSection(Section):
    """What of an update is sent, in how many bits; which weights the model does without."""

    update_bits: Literal[16, 8, 4] | None = Field(
        None,
        description=(
            "Bits of a coordinate of an update, rounded stochastically; several share a word of the"
            " ring where the cohort's sum leaves room: at 10 sites two of 8 bits, four of 4 bits."
            " Default: a word each."
        ),
    )
    largest_coordinate: float | None = Field(
        None,
        gt=0,
        description=(
            "With update_bits: a coordinate of an update beyond it is cut off there, at the site."
            " The levels lie between it and its negative."
        ),
    )
    keep_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=(
            "Share of an update's coordinates that is sent, others in each round: drawn from the"
            " config's digest and the round, the same at all sites, so that nothing of the data"
            " shows in which. Default: all."
        ),
    )
    prune_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=(
            "Share of the weights, biases aside, that the coordinator sets to zero after a round:"
            " the smallest of the global model. Default: none."
        ),
    )
    prune_rounds: int | None = Field(
        None,
        ge=1,
        description="Rounds over which that share grows from none. Default: half the rounds.",
    )

    quantise_training: Literal[8] | None = Field(
        None,
        description=(
            "8: bits of a weight, biases aside, in every step's and test's forward pass; the last"
            " round's model has its weights on that many levels. Default: not rounded."
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        main = (self.update_bits, self.keep_share, self.prune_share, self.quantise_training)
        if main == (None, None, None, None):
            raise ValueError(
                "update_bits, keep_share, prune_share and quantise_training are all missing, so"
                " that nothing is compressed; set one or remove [compression]"
            )
        if self.update_bits is not None and self.largest_coordinate is None:
            raise ValueError(
                f"update_bits = {self.update_bits} needs largest_coordinate, between which and its"
                " negative the levels lie; set e.g. largest_coordinate = 0.1"
            )
        if self.largest_coordinate is not None and self.update_bits is None:
            raise ValueError(
                f"largest_coordinate = {self.largest_coordinate:g} is of no use without"
                " update_bits; set update_bits = 8 or remove it"
            )
        if self.prune_rounds is not None and self.prune_share is None:
            raise ValueError(
                f"prune_rounds = {self.prune_rounds} is of no use without prune_share; set it or"
                " remove prune_rounds"
            )
        return self


def verify_compression(config: "Config") -> None:
    """Refuse what contradicts the section elsewhere in the config.

    Raises:
        ValueError: See above.
    """
    section = config.compression
    if section is None:
        return
    if section.update_bits is not None:
        _verify_sent(config, f"compression.update_bits = {section.update_bits}")
        if config.federation.weighting == "examples":
            raise ValueError(
                f"compression.update_bits = {section.update_bits} has too few levels for updates"
                " that are multiplied by record counts; set federation.weighting = 'equal'"
            )
    if section.keep_share is not None:
        _verify_sent(config, f"compression.keep_share = {section.keep_share:g}")
    if section.prune_share is not None:
        _verify_last(config, f"compression.prune_share = {section.prune_share:g}")
    if section.quantise_training is not None:
        _verify_last(config, f"compression.quantise_training = {section.quantise_training}")
    rounds = config.federation.rounds
    if section.prune_rounds is not None and section.prune_rounds > rounds:
        raise ValueError(
            f"compression.prune_rounds = {section.prune_rounds} is above federation.rounds ="
            f" {rounds}; lower it"
        )


def _verify_sent(config: "Config", shown: str) -> None:
    if config.secure_aggregation.mode == "off":
        raise ValueError(
            f"{shown} is of the vectors of secure aggregation, secure_aggregation.mode = 'off'"
            " sends none; set mode = 'protocol'"
        )
    if config.privacy.covers_sites:
        raise ValueError(
            f"{shown} does not fit privacy.unit = '{config.privacy.unit}', whose noise is counted"
            " for a whole update in words of its own; remove it"
        )
    if config.federation.strategy == "SCAFFOLD":
        raise ValueError(
            f"{shown} does not fit federation.strategy = 'SCAFFOLD', which reads local gradients"
            " off whole updates; choose FedAvg"
        )


def _verify_last(config: "Config", shown: str) -> None:
    federation, own = config.federation, config.personalisation
    if federation.select == "best" or federation.patience is not None:
        raise ValueError(
            f"{shown} is whole in the last round, whose model must be the run's; set"
            " federation.select = 'last' and remove federation.patience"
        )
    if own is not None and own.local_layers:
        raise ValueError(
            f"{shown} is of weights at the coordinator, which has none of"
            " personalisation.local_layers; remove one of the two"
        )
