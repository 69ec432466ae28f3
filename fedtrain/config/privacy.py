"""Sections on the differential-privacy guarantee."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fedtrain.config.section import Section


class SitePrivacySection(Section):
    """Noise in shares, inside the masked sum: protects a whole site's update."""

    noise_multiplier: float | None = Field(
        None,
        ge=0,
        description=(
            "Noise standard deviation of a sum / max_update_norm, by the honest survivors alone;"
            " or give target_epsilon."
        ),
    )
    target_epsilon: float | None = Field(
        None, gt=0, description="Epsilon that the whole run may cost a site."
    )
    target_delta: float = Field(1e-6, gt=0, lt=1, description="Delta of the guarantee.")
    max_update_norm: float | None = Field(
        None,
        gt=0,
        description="L2 clip of a site's update; with adaptive clipping the largest that it gets.",
    )
    clipping: Literal["fixed", "adaptive"] = Field(
        "fixed",
        description="adaptive: the clip follows a noised quantile of norms (Andrew et al. 2021).",
    )
    initial_update_norm: float | None = Field(
        None, gt=0, description="adaptive: the first clip; default: a tenth of max_update_norm."
    )
    target_quantile: float = Field(
        0.5, gt=0, lt=1, description="adaptive: share of sites whose update is below the clip."
    )
    clip_learning_rate: float = Field(
        0.2, gt=0, le=2, description="adaptive: rate of the clip's geometric steps."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        first, largest = self.initial_update_norm, self.max_update_norm
        if first is not None and self.clipping == "fixed":
            raise ValueError(
                f"initial_update_norm = {first:g} has no effect while clipping = 'fixed'; set"
                " clipping = 'adaptive' or remove it"
            )
        if first is not None and largest is not None and first > largest:
            raise ValueError(
                f"initial_update_norm = {first:g} is above max_update_norm = {largest:g}; lower it"
            )
        return self


class PrivacySection(Section):
    """The differential-privacy guarantee."""

    unit: Literal["none", "record", "person", "site", "record_and_site", "person_and_site"] = Field(
        "none",
        description=(
            "What is protected: nothing; one record, or one person with all of theirs at a site"
            " (DP-SGD); a site's whole update (noise inside the secure sum); or both."
        ),
    )
    noise_multiplier: float | None = Field(
        None, ge=0, description="Noise standard deviation / max_grad_norm; or give target_epsilon."
    )
    target_epsilon: float | None = Field(
        None,
        gt=0,
        description="Epsilon that the whole run may cost; the noise is calibrated to it.",
    )
    target_delta: float = Field(1e-5, gt=0, lt=1, description="Delta of the guarantee.")
    max_grad_norm: float = Field(
        1.0, gt=0, description="L2 clip of the gradient of each record, or person."
    )
    neighbouring_relation: Literal["add_remove", "replace_one"] = Field(
        "add_remove", description="Which data sets count as neighbours."
    )
    metrics: Literal["suppressed", "uncovered"] | None = Field(
        None,
        description=(
            "Losses and accuracies that sites compute on their records, which the guarantee does"
            " not cover: suppressed, or sent and declared uncovered. Default: suppressed under"
            " privacy; without it they are sent."
        ),
    )
    site: SitePrivacySection = SitePrivacySection()

    @property
    def covers_records(self) -> bool:
        """Whether records or persons are protected by DP-SGD at the site."""
        return self.unit.startswith(("record", "person"))

    @property
    def covers_persons(self) -> bool:
        """Whether what DP-SGD protects is a person with all of their records at a site."""
        return self.unit.startswith("person")

    @property
    def covers_sites(self) -> bool:
        """Whether a site's whole update is protected by noise inside the secure sum."""
        return self.unit.endswith("site")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_noise(self.covers_records, "record", self, prefix="", unit=self.unit)
        _check_noise(self.covers_sites, "site", self.site, prefix="site.", unit=self.unit)
        if self.covers_sites and self.site.max_update_norm is None:
            raise ValueError(
                f"site.max_update_norm is missing; unit = '{self.unit}' clips each site's update"
                " to it"
            )
        if self.unit == "none" and self.metrics == "suppressed":
            raise ValueError("metrics = 'suppressed' has no effect while unit = 'none'; remove it")
        return self


def _check_noise(
    covered: bool,
    level: str,
    table: PrivacySection | SitePrivacySection,
    *,
    prefix: str,
    unit: str,
) -> None:
    """Refuse noise of a level that `unit` does not cover, and a covered level without any."""
    keys = ("noise_multiplier", "target_epsilon")
    given = [key for key in keys if getattr(table, key) is not None]
    if not covered and given:
        raise ValueError(
            f"{prefix}{given[0]} = {getattr(table, given[0]):g} has no effect while unit ="
            f" '{unit}'; set unit = '{level}' or remove it"
        )
    if covered and not given:
        raise ValueError(
            f"{prefix}noise_multiplier and {prefix}target_epsilon are both missing; unit ="
            f" '{unit}' needs one"
        )
