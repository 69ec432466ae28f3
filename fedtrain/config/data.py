"""Sections on where records come from and who has them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fedtrain.config.section import Section


class DataSection(Section):
    """Where records come from and how a site prepares them."""

    task: (
        Literal["classification", "regression", "multi_label", "forecasting", "anomaly", "masked"]
        | None
    ) = Field(
        None,
        description=(
            "classification (the default); regression; multi_label; forecasting of one series a"
            " site; anomaly: an autoencoder of records of the first class, tested on both; masked:"
            " hidden numbers of a record from the others, a start for another task."
        ),
    )
    source: str = Field(
        "sklearn:digits",
        description=(
            "sklearn:digits, sklearn:breast_cancer, sklearn:diabetes (regression),"
            " generated:graphs, generated:ratings, generated:many_ratings, csv, parquet, idx, npz,"
            " images, text, or module:function for your own."
        ),
    )
    path: str | None = Field(
        None,
        description="File or folder of the data; a relative path starts at the current folder.",
    )
    label: str | None = Field(
        None,
        description="Label column, or an expression over one: 'num > 0'. csv and parquet need it.",
    )
    targets: tuple[str, ...] | None = Field(
        None,
        description="multi_label: the label columns, of 0 and 1. regression: names of several.",
    )
    target_bounds: tuple[float, float] | None = Field(
        None,
        description=(
            "regression, forecasting: public lower and upper bound of what is predicted; values"
            " beyond count as at it."
        ),
    )
    mask_share: float | None = Field(
        None, gt=0, lt=1, description="masked: share of a record's numbers that is hidden. 0.5."
    )
    horizon: int | None = Field(
        None, ge=1, le=512, description="forecasting: steps ahead that are predicted. Default: 1."
    )
    site_column: str | None = Field(
        None, description="Column that names the site of each row, where one file holds all sites."
    )
    person_column: str | None = Field(
        None,
        description=(
            "Column that says which person a row is about; privacy.unit = 'person' needs it. npz"
            " has an array 'person' instead."
        ),
    )
    group_column: str | None = Field(
        None,
        description=(
            "Column by whose data.categories test metrics are also told apart: worst group, gap to"
            " equalised odds. It may be a feature too. Default: no groups."
        ),
    )
    columns: tuple[str, ...] | None = Field(
        None,
        description="Feature columns, in order; default: all but label, site and person.",
    )
    categorical: tuple[str, ...] = Field(
        (), description="Numeric-looking columns to treat as categories."
    )
    missing: tuple[str, ...] = Field(
        ("", "?", "NA", "NaN", "nan", "null"),
        description="Texts that mean 'no value'.",
    )
    zero_is_missing: tuple[str, ...] = Field(
        (), description="Numeric columns in which 0 means 'no value'."
    )
    preparation: Literal["standardise", "bounds", "none"] | None = Field(
        None,
        description=(
            "standardise: federated mean and variance; bounds: by public bounds; none. Default:"
            " bounds where the source has a public range or data.bounds is given, else standardise."
        ),
    )
    bounds: dict[str, tuple[float, float]] = Field(
        {}, description="Public lower and upper bound of numeric columns."
    )
    categories: dict[str, tuple[str, ...]] = Field(
        {}, description="Public categories of categorical columns."
    )
    clip_outliers: tuple[float, float] | None = Field(
        None,
        description=(
            "Clip numeric columns to these quantiles of all sites' training records, e.g."
            " [0.01, 0.99]; from histograms over data.bounds through secure aggregation."
        ),
    )
    drop_duplicates: bool | None = Field(
        None, description="Drop records of a site that equal an earlier one there, label included."
    )
    classes: tuple[str, ...] | None = Field(
        None, description="Public label names, in order; default: found federated."
    )
    sequence_length: int = Field(
        32, ge=1, le=4096, description="text, forecasting: steps before those to predict."
    )
    vocabulary: tuple[str, ...] | None = Field(
        None,
        description=(
            "text: public byte-pair tokens, the last for unknown characters; fedtrain vocabulary"
            " learns some. Default: the printable characters of ASCII."
        ),
    )
    augmentation: tuple[Literal["flip", "crop", "rotate", "noise"], ...] | None = Field(
        None,
        description=(
            "Images: what is done to each record anew in each step of training; one view a record."
        ),
    )
    image_size: tuple[int, int] | None = Field(
        None, description="images: height and width to resize to."
    )
    central_test: bool | None = Field(
        None,
        description=(
            "Test at the coordinator on the source's own test set; default: where the source is"
            " idx."
        ),
    )
    validation_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of each site's records held out to choose the best model.",
    )
    test_fraction: float = Field(
        0.2, ge=0, lt=1, description="Share of each site's records held out to report on."
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=100,
        description="Cross-validation: each site's records are dealt to so many test sets.",
    )
    fold: int | None = Field(
        None, ge=0, description="Which of them this run tests on, from 0; for test_fraction."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"validation_fraction + test_fraction ="
                f" {self.validation_fraction + self.test_fraction:g} leaves nothing to train on;"
                " their sum must be below 1"
            )
        if (self.folds is None) != (self.fold is None) or (self.fold or 0) >= (self.folds or 1):
            raise ValueError(
                f"folds = {self.folds} and fold = {self.fold}: both are needed, and fold below"
                " folds; fedtrain cross-validate sets them"
            )
        if self.folds is not None and self.task == "forecasting":
            raise ValueError(
                f"folds = {self.folds} would train on what comes after the test; leave it out: a"
                " series is split in time"
            )
        if self.clip_outliers is not None:
            lower, upper = self.clip_outliers
            if not 0 <= lower < upper <= 1:
                raise ValueError(
                    f"clip_outliers = [{lower:g}, {upper:g}] are no two rising quantiles from 0 to"
                    " 1; e.g. [0.01, 0.99]"
                )
        for name, (low, high) in self.bounds.items():
            if not low < high:
                raise ValueError(
                    f"bounds.{name} = [{low:g}, {high:g}]: the lower bound must be below the upper"
                )
        return self


class PartitionSection(Section):
    """How a simulation deals records to sites."""

    scheme: Literal["iid", "dirichlet", "shards", "quantity", "natural"] = Field(
        "iid",
        description=(
            "iid; dirichlet (label skew); shards (McMahan 2017); quantity (size skew);"
            " natural (by file, column or speaker)."
        ),
    )
    sites: int | None = Field(
        None, ge=1, le=1_000_000, description="Number of sites; natural takes it from the data."
    )
    alpha: float = Field(
        0.5, gt=0, description="Dirichlet concentration of dirichlet and quantity; small is skewed."
    )
    shards_per_site: int = Field(2, ge=1, description="shards: label shards a site.")
    min_records: int = Field(
        1, ge=1, description="Fewest records a site may have; fewer is an error, not a surprise."
    )
    leave_out: tuple[str, ...] | None = Field(
        None, description="Sites, by name, that a simulation goes without, to be tested on later."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scheme != "natural" and self.sites is None:
            raise ValueError(f"sites is missing; scheme '{self.scheme}' needs it, e.g. sites = 10")
        return self
