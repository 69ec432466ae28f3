"""The section on attacks that follow a run."""

from pydantic import Field

from fedtrain.config.section import Section


class AuditSection(Section):
    """Attacks that follow the last round of a simulation and check the guarantee from below."""

    methods: tuple[str, ...] = Field(
        (),
        description=(
            "What is tried, by the names that `fedtrain audit --list` prints; empty: nothing."
            " Written down before the run, so that no method is chosen by its result."
        ),
    )
    canaries: int = Field(
        5000,
        ge=100,
        le=1_000_000,
        description="Canaries of a method that has any; 5000 find noise that is half as large.",
    )
    confidence: float = Field(0.95, ge=0.5, lt=1, description="Of bounds, intervals and verdicts.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the audit's own draws.")
    inverted_records: int | None = Field(
        None,
        ge=4,
        le=100_000,
        description=(
            "Records that `inversion` searches for, four a step, as its finding says; left out: 32,"
            " or 16 where a record has more than 256 numbers. At most 8 where `quick`."
        ),
    )
    label_records: int | None = Field(
        None,
        ge=1,
        description=(
            "Most records of a site in the step that `label-leakage` reads; its finding says so"
            " where a site has more. Left out: 1,000."
        ),
    )
    quick: bool = Field(False, description="Smaller samples: a minute on one core.")
