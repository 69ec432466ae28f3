"""The section on rounds, cohorts and strategies."""

from typing import Final, Literal, Self, get_args

from pydantic import Field, model_validator

from fedtrain.config.schedule import verify_schedule
from fedtrain.config.section import Section

Strategy = Literal[
    "FedAvg",
    "FedProx",
    "FedAvgM",
    "FedAdam",
    "FedYogi",
    "FedAdagrad",
    "FedMedian",
    "FedTrimmedAvg",
    "Krum",
    "MultiKrum",
    "Bulyan",
    "QFedAvg",
    "SCAFFOLD",
    "FedNova",
]
STRATEGIES: Final[tuple[str, ...]] = get_args(Strategy)
# Strategies that need the weighted average of a round and no single update: their replies are
# folded into one as they arrive, and secure aggregation can stand below them.
AVERAGING_STRATEGIES: Final = (
    "FedAvg",
    "FedProx",
    "FedAvgM",
    "FedAdam",
    "FedYogi",
    "FedAdagrad",
    "SCAFFOLD",
    "FedNova",
)
# FedProx's coefficient where federation.strategy_options names none.
DEFAULT_PROXIMAL_MU: Final = 0.01


class FederationSection(Section):
    """Rounds, cohorts and the strategy."""

    strategy: Strategy = Field("FedAvg", description="Flower strategy that aggregates the updates.")
    strategy_options: dict[str, float | int] = Field(
        {}, description="The strategy's own parameters, by Flower's names: {server_momentum = 0.5}."
    )
    rounds: int = Field(10, ge=1, le=1_000_000, description="Rounds of the whole run.")
    sites_per_round: int | None = Field(
        None, ge=1, description="Sites drawn a round, uniformly; default: all."
    )
    site_sample_rate: float | None = Field(
        None, gt=0, le=1, description="Poisson probability of a site in a round instead."
    )
    min_survivors: int = Field(
        1,
        ge=1,
        description="Fewest usable updates; a round with fewer is void and changes nothing.",
    )
    weighting: Literal["examples", "equal"] | None = Field(
        None,
        description=(
            "Weight of a site in the average: its number of training records, or equal."
            " Default: examples; under record-level privacy equal."
        ),
    )
    evaluate_every: int = Field(
        1,
        ge=0,
        description="Evaluate at the sites every so many rounds, and at the end; 0: at the end.",
    )
    select: Literal["best", "last"] | None = Field(
        None,
        description=(
            "Which global model model.safetensors holds: the best by validation loss, or the last."
            " Default: best where there is validation data and no differential privacy."
        ),
    )
    patience: int | None = Field(
        None,
        ge=1,
        description=(
            "Evaluations without a lower validation loss after which the run ends early. Default:"
            " all rounds are run."
        ),
    )
    schedule: Literal["step", "cosine", "plateau"] | None = Field(
        None,
        description=(
            "How the coordinator's step towards the strategy's result falls over the rounds; see"
            " training.schedule. Default: it takes the whole step."
        ),
    )
    schedule_rounds: int | None = Field(None, ge=1, description="As in training.")
    schedule_factor: float | None = Field(None, gt=0, lt=1, description="As in training.")
    warmup_rounds: int | None = Field(None, ge=1, description="As in training.")
    round_timeout: float = Field(
        3600.0, gt=0, description="Seconds after which a site that has not answered is dropped."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sites_per_round is not None and self.site_sample_rate is not None:
            raise ValueError(
                f"sites_per_round = {self.sites_per_round} and site_sample_rate ="
                f" {self.site_sample_rate:g} exclude each other; keep one"
            )
        verify_schedule(self.schedule, rounds=self.schedule_rounds, factor=self.schedule_factor)
        if self.sites_per_round is not None and self.min_survivors > self.sites_per_round:
            raise ValueError(
                f"min_survivors = {self.min_survivors} is above sites_per_round ="
                f" {self.sites_per_round}; lower it"
            )
        return self
