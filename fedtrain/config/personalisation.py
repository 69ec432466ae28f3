"""The section on what a site has for itself: layers or a model of its own."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from fedtrain.config.section import Section

if TYPE_CHECKING:
    from fedtrain.config.whole import Config


class PersonalisationSection(Section):
    """What a site has for itself: layers that never leave it, or a model beside the global."""

    local_layers: tuple[str, ...] | None = Field(
        None,
        description=(
            "Patterns of tensor names, as ['*norm*', 'head.*']: these stay at their site (FedBN),"
            " the others are averaged. Default: all are averaged."
        ),
    )
    model: Literal["fine_tuned", "ditto"] | None = Field(
        None,
        description=(
            "A model of the site's own, tested beside the global one: fine_tuned, at the end, from"
            " the global model; ditto, trained in each round with a pull towards it. Default: none."
        ),
    )
    epochs: int = Field(1, ge=1, description="Passes over the local data of the own model.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description=(
            "Of the own model, which is trained without noise. Default: training.learning_rate;"
            " under record-level privacy it must be given."
        ),
    )
    ditto_lambda: float = Field(0.1, gt=0, description="ditto: strength of the pull.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.local_layers and self.model is None:
            raise ValueError(
                "local_layers and model are both missing, so that nothing is a site's own; set one"
                " or remove [personalisation]"
            )
        if self.local_layers and self.model == "ditto":
            raise ValueError(
                f"local_layers = {list(self.local_layers)} with model = 'ditto', all of which is"
                " the site's own anyway; keep one of the two"
            )
        return self


def verify_personalisation(config: "Config") -> None:
    """Refuse what contradicts the section elsewhere in the config.

    Raises:
        ValueError: See above.
    """
    section = config.personalisation
    if section is None:
        return
    if section.local_layers:
        _verify_local_layers(config)
    if section.model is None:
        return
    if config.data.test_fraction == 0:
        raise ValueError(
            f"personalisation.model = '{section.model}' is compared on each site's test records,"
            " data.test_fraction = 0 leaves none; set it to 0.2"
        )
    if section.model == "fine_tuned" and config.federation.patience is not None:
        raise ValueError(
            f"personalisation.model = 'fine_tuned' is made in the last round, which"
            f" federation.patience = {config.federation.patience} makes unknown; remove patience"
        )
    suppressed = config.privacy.unit != "none" and config.privacy.metrics != "uncovered"
    if suppressed and section.model == "fine_tuned":
        raise ValueError(
            "personalisation.model = 'fine_tuned' is made when metrics are asked for, and"
            " privacy.metrics = 'suppressed' asks for none; set 'uncovered', or model = 'ditto'"
        )
    if config.privacy.covers_records and section.learning_rate is None:
        raise ValueError(
            f"personalisation.learning_rate is missing; training.learning_rate ="
            f" {config.training.learning_rate:g} is for clipped and noised gradients, and the own"
            " model is trained without; set e.g. 0.05"
        )


def _verify_local_layers(config: "Config") -> None:
    if config.federation.strategy == "SCAFFOLD":
        raise ValueError(
            "personalisation.local_layers does not fit federation.strategy = 'SCAFFOLD', whose"
            " control variates are of whole models; choose FedAvg"
        )
    if config.data.central_test:
        raise ValueError(
            "data.central_test = true tests a whole model at the coordinator, which with"
            " personalisation.local_layers has none; set it to false"
        )
