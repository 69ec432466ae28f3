"""Who takes part in a round."""

from collections.abc import Sequence
from typing import TypeVar

from fedtrain.config import FederationSection
from fedtrain.seeds import make_numpy_generator

T = TypeVar("T")


def draw_cohort(
    members: Sequence[T],
    section: FederationSection,
    *,
    seed: int,
    round: int,
) -> list[T]:
    """Return this round's cohort, in the members' order.

    All members; or `sites_per_round` of them, uniformly without replacement; or each with
    probability `site_sample_rate`, which may be none. No privacy amplification is claimed from it.
    """
    generator = make_numpy_generator(seed, "cohort", round)
    if section.site_sample_rate is not None:
        mask = generator.random(len(members)) < section.site_sample_rate
        return [member for member, chosen in zip(members, mask, strict=True) if chosen]
    if section.sites_per_round is None or section.sites_per_round >= len(members):
        return list(members)
    chosen = generator.choice(len(members), size=section.sites_per_round, replace=False)
    return [members[i] for i in sorted(chosen)]
