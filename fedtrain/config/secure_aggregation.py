"""The section on what hides one site from the coordinator."""

from typing import Literal

from pydantic import Field

from fedtrain.config.section import Section


class SecureAggregationSection(Section):
    """What hides one site's update, metrics and example count from the coordinator."""

    mode: Literal["protocol", "arithmetic", "off"] = Field(
        "protocol",
        description=(
            "protocol: the coordinator learns the sum over the survivors, or nothing; arithmetic:"
            " the same sum without keys, for large simulations, hides nothing; off: it sees every"
            " update."
        ),
    )
    threshold: int | None = Field(
        None,
        ge=2,
        description="Survivors that a sum needs; default: the smallest t > 2n/3 of the cohort.",
    )
    min_cohort: int = Field(
        3, ge=3, description="Fewest sites that a sum may be over; two cannot hide from each other."
    )
    ring_bits: int = Field(32, ge=16, le=32, description="k of the ring Z/2^k that sums are in.")
    dropout_share: float = Field(
        0.1,
        ge=0,
        lt=0.5,
        description="Above 200 sites: share that may drop out, from which the graph follows.",
    )
    corrupt_share: float = Field(
        0.1,
        ge=0,
        lt=0.5,
        description="Above 200 sites: share that may side with the coordinator, likewise.",
    )
    max_update_norm: float = Field(
        16.0,
        gt=0,
        description="Bound on a site's update (L2); one beyond it is refused there, never clipped.",
    )
    max_weight: int = Field(
        10_000, ge=1, description="Public bound that example counts are clipped to."
    )
