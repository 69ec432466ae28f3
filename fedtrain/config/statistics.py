"""The section of a run that asks the sites for statistics, and trains nothing."""

from typing import TYPE_CHECKING

from pydantic import Field

from fedtrain.config.section import Section

if TYPE_CHECKING:
    from fedtrain.config.whole import Config


class StatisticsSection(Section):
    """Makes a run one question: sums over all sites' records, and not a round of training."""

    columns: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description=(
            "Columns that are described, each with public bounds or categories. Default:"
            " data.columns, or else all that have them. Text has none: of it is counted in how many"
            " records one token follows another."
        ),
    )
    vocabulary: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description=(
            "Of text, the tokens that are counted, unknown characters last. Records are"
            " data.sequence_length + 1 characters whatever it is, so that questions add up."
            " Default: data.vocabulary, or characters."
        ),
    )
    bins: int = Field(20, ge=0, le=4096, description="Equal bins of each histogram; 0: none.")
    correlation: bool = Field(
        False, description="Whether products of every two numeric columns are summed, too."
    )
    max_records: int | None = Field(
        None,
        ge=1,
        description=(
            "Records that one site has at most; the ring is proven for so many. Default:"
            " secure_aggregation.max_weight."
        ),
    )
    min_records: int = Field(
        10, ge=1, description="The result tells no figure of fewer records, over all sites."
    )
    target_epsilon: float | None = Field(
        None, gt=0, description="Epsilon of the whole sum for one record. Default: no noise."
    )
    target_delta: float = Field(1e-5, gt=0, lt=1, description="Its delta.")
    noise_multiplier: float | None = Field(
        None,
        gt=0,
        description=(
            "Noise of the sum / what one record can change in it (L2). Default: the smallest for"
            " target_epsilon. Without either the sum is exact, which few sites allow."
        ),
    )


def verify_statistics(config: "Config") -> None:
    """Refuse a question that the config's own promises exclude.

    Raises:
        ValueError: See above.
    """
    section, unit = config.statistics, config.privacy.unit
    if section is None:
        return
    if config.privacy.covers_persons or config.privacy.covers_sites:
        raise ValueError(
            f"statistics are noised for single records, which does not cover privacy.unit ="
            f" '{unit}'; describe data of another unit"
        )
    exact = section.target_epsilon is None and section.noise_multiplier is None
    if config.privacy.covers_records and exact:
        raise ValueError(
            f"privacy.unit = '{unit}': exact statistics would leave unprotected; set"
            " statistics.target_epsilon (--epsilon)"
        )
    if config.secure_aggregation.mode == "off":
        raise ValueError(
            "statistics.* are sums by secure aggregation, secure_aggregation.mode = 'off' has none;"
            " set mode = 'protocol'"
        )
