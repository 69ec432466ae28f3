"""Trials of a noised secure sum: canary sites whose updates share nothing, in the real encoding.

Each honest survivor of a sum sends, by a fair coin, an update of the full clip along a coordinate
of its own, or zeros. The sum is over as few sites as the claim counts on, so that its noise is just
what is claimed.

Shapes: m trials, s sites of a sum.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.config import Config
from fedtrain.plan import build_site_plan, count_sites, get_threshold
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.training_vector import UPDATE, TrainingVector

_LABEL: Final = "site trials"


def run_site_trials(
    config: Config, trials: int, *, seed: int, running: Config | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Run sums with canary sites.

    Args:
        config: The resolved config, with privacy of sites.
        trials: Least number of canaries.
        seed: Of coins, rounding and noise.
        running: The config whose noise is really added, where a test plants a fault.

    Returns:
        Who was present `(m,)`, and what the sum shows of each, in clips `(m,)`.

    Raises:
        ValueError: The config protects no site.
    """
    plan = build_site_plan(config)
    if plan is None:
        raise ValueError("the config has no privacy of sites to try")
    cohort = _choose_cohort(config)
    shares = plan.count_shares(cohort, get_threshold(config, cohort))
    layout = TrainingVector(running or config, size=shares, cohort=cohort)
    coins = SecureGenerator.from_seed(seed, _LABEL, "coins")
    rounding = SecureGenerator.from_seed(seed, _LABEL, "rounding")
    noise = SecureGenerator.from_seed(seed, _LABEL, "noise")
    clip = plan.first_update_norm
    present, shown = [], []
    for _ in range(-(-trials // shares)):
        mask = coins.draw_uniform(shares) < 0.5
        total = None
        for own in range(shares):
            update = np.zeros(shares, np.float32)
            update[own] = 2 * clip * mask[own]  # beyond the clip, so that it is clipped
            words = layout.encode(update, weight=1, train_loss=0.0, rounding=rounding, noise=noise)
            total = words if total is None else total + words
        if total is None:
            raise ValueError("a sum needs a site")
        parts = layout.encoding.decode_sum(total, shares)
        present.append(mask)
        shown.append(parts[UPDATE][:shares] / clip)
    return np.concatenate(present), np.concatenate(shown)


def _choose_cohort(config: Config) -> int:
    """Return the cohort of a usual round."""
    sites = count_sites(config)
    rate = config.federation.site_sample_rate
    if rate is not None:
        return max(config.secure_aggregation.min_cohort, round(rate * sites))
    return config.federation.sites_per_round or sites
