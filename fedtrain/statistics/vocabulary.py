"""A byte-pair vocabulary of deployed sites' texts, learnt from noised sums, a question a step.

A step asks in how many records one token of the vocabulary so far follows another. What noise alone
could have made is left out, the most frequent pairs become tokens, and the next step asks with
those. The vocabulary is public from then on.

All steps are asked of the same records, windows of characters, so that what they cost a record
adds up. Records that a training cuts by tokens are other ones.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fedtrain.config import Config
from fedtrain.data.byte_pairs import STEP, choose_pairs, leave_out_boundaries
from fedtrain.data.speeches import VOCABULARY
from fedtrain.errors import ConfigError
from fedtrain.statistics.figures import CLEAR
from fedtrain.statistics.result import StatisticsResult
from fedtrain.statistics.vector import calibrate_noise

_MOST: Final = 512  # tokens: a step's sum has the square of so many numbers


@dataclass(frozen=True)
class VocabularyPlan:
    """How a vocabulary is learnt.

    Attributes:
        tokens: To begin with: characters, or the vocabulary that the scenario has.
        size: Tokens wanted.
        noise_multiplier: Of each step's sum, so that all of them cost at most the target.
        target_delta: Delta of that.
        min_count: Fewest records that a pair must be in, over all sites.
    """

    tokens: tuple[str, ...]
    size: int
    noise_multiplier: float
    target_delta: float
    min_count: int

    @property
    def steps(self) -> int:
        """Sums at most."""
        return count_steps(len(self.tokens), self.size)


def count_steps(tokens: int, size: int) -> int:
    """Return how many steps lead from some tokens to more."""
    return -(-(size - tokens) // STEP)


def plan_vocabulary(
    config: Config, *, size: int, target_epsilon: float, target_delta: float, min_count: int
) -> VocabularyPlan:
    """Plan the steps, whose noise makes all of them together cost a record at most the target.

    Args:
        config: Of `data.source = "text"`.
        size: Tokens wanted.
        target_epsilon: Of all steps.
        target_delta: Its delta.
        min_count: Fewest records that a pair must be in, over all sites.

    Raises:
        ConfigError: The scenario has no text, or an argument is out of its range.
    """
    tokens = config.data.vocabulary or VOCABULARY
    if config.data.source != "text":
        raise ConfigError(
            f"data.source = {config.data.source!r} has no text to learn tokens of; name a scenario"
            " with data.source = 'text'"
        )
    if not len(tokens) < size <= _MOST or min_count < 1:
        raise ConfigError(
            f"size = {size}, min_count = {min_count}: above the {len(tokens)} tokens that there"
            f" are, at most {_MOST}, and at least 1 are needed"
        )
    noise_multiplier = calibrate_noise(
        config,
        target_epsilon=target_epsilon,
        target_delta=target_delta,
        sums=count_steps(len(tokens), size),
    )
    return VocabularyPlan(tokens, size, noise_multiplier, target_delta, min_count)


def extend_vocabulary(
    plan: VocabularyPlan, tokens: tuple[str, ...], result: StatisticsResult
) -> tuple[str, ...]:
    """Return a vocabulary with the tokens that one step found; the same where it found none.

    Args:
        plan: From `plan_vocabulary`.
        tokens: So far.
        result: Of the step's question.

    Raises:
        ConfigError: The result is not of that question, or has no noise.
    """
    if result.plan.tokens != tokens or result.sums is None:
        raise ConfigError("the result is of another question than this step's; ask anew")
    total = np.array(result.sums[-(len(tokens) ** 2) :]).reshape(len(tokens), -1)
    found = choose_pairs(
        leave_out_boundaries(total, tokens),
        tokens,
        wanted=min(STEP, plan.size - len(tokens)),
        min_count=max(float(plan.min_count), CLEAR * result.figures.noise_stddev),
    )
    return (*tokens[:-1], *found, tokens[-1])
