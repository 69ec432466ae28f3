"""Who takes part in a round."""

from collections.abc import Sequence
from typing import TypeVar

from fedtrain.config import FederationSection
from fedtrain.seeds import make_numpy_generator

from .draws import Draws

T = TypeVar("T")


def draw_cohort(
    members: Sequence[T],
    section: FederationSection,
    *,
    seed: int,
    round: int,
    draws: Draws | None = None,
) -> list[T]:
    """Return this round's cohort, in the members' order.

    All members; or `sites_per_round` of them, uniformly without replacement; or each with
    probability `site_sample_rate`, which may be none. Amplification of site-level privacy is
    claimed from the last only, which is why its draws come from a CSPRNG.

    Args:
        members: Who may be asked.
        section: How many are.
        seed: Of the run.
        round: From 1.
        draws: Where Poisson samples come from; by default a simulation's.
    """
    if section.site_sample_rate is not None:
        secret = (draws or Draws.from_seed(seed)).make_generator("cohort", round)
        mask = secret.draw_poisson_mask(len(members), rate=section.site_sample_rate)
        return [member for member, chosen in zip(members, mask, strict=True) if chosen]
    generator = make_numpy_generator(seed, "cohort", round)
    if section.sites_per_round is None or section.sites_per_round >= len(members):
        return list(members)
    chosen = generator.choice(len(members), size=section.sites_per_round, replace=False)
    return [members[i] for i in sorted(chosen)]
