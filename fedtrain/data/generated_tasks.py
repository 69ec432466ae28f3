"""Made-up data for tasks that no package ships federated data of: a series a site, several labels.

They are the same wherever and whenever they are made, and their process is stated, so that it is
known how well anything could predict them.

Shapes: t hours, n records, L labels.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.columns import Category
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records
from fedtrain.data.targets import label_alike

LOAD_SITES, HOURS = 8, 24 * 60
LABEL_SITES, PATIENTS, MEASUREMENTS = 8, 250, 20
CONDITIONS: Final = ("anaemia", "diabetes", "infection", "kidney", "liver", "thyroid")
_SEED: Final = 20_261_122


def generate_loads() -> dict[str, NDArray[np.float64]]:
    """Make the electric load of eight sites by hour, in per cent of each one's connection.

    A site's load is its own base (30 to 50), a daily wave of its own height (8 to 16) and phase, at
    weekends a fifth lower, and what is left of earlier disturbances: e_t = 0.8 e_(t-1) + noise of
    standard deviation 1.5. No forecast of the next hour can have an RMSE below 1.5.

    Returns:
        Sixty days by site, `(t,)`, in [0, 100].
    """
    loads = {}
    for site in range(LOAD_SITES):
        generator = np.random.default_rng([_SEED, site])
        hours = np.arange(HOURS)
        base, height = generator.uniform(30, 50), generator.uniform(8, 16)
        wave = height * np.sin(2 * np.pi * (hours / 24 - generator.uniform(0.2, 0.4)))
        disturbance = np.empty(HOURS)
        left = 0.0
        for hour, noise in enumerate(generator.normal(scale=1.5, size=HOURS)):
            left = disturbance[hour] = 0.8 * left + noise
        weekend = np.where((hours // 24) % 7 >= 5, 0.8, 1.0)
        loads[f"plant-{site:02d}"] = np.clip((base + wave) * weekend + disturbance, 0, 100)
    return loads


def generate_conditions() -> Records:
    """Make patients of eight hospitals with measurements and any of six conditions.

    A patient has six severities, normal and correlated by 0.3; a condition is there where its
    severity is above the hospital's threshold, 0.4 to 1.2 for each. The twenty measurements are
    random sums of two to four severities with noise of half their spread, mapped to [0, 1] by a
    logistic curve.

    Returns:
        Records `(n, 20)` of float32 with targets `(n, 6)` of 0 and 1; natural sites.
    """
    generator = np.random.default_rng(_SEED)
    weights = np.zeros((len(CONDITIONS), MEASUREMENTS))
    for column in range(MEASUREMENTS):
        chosen = generator.choice(len(CONDITIONS), size=generator.integers(2, 5), replace=False)
        weights[chosen, column] = generator.normal(size=len(chosen))
    parts, targets = [], []
    for _ in range(LABEL_SITES):
        shared = generator.normal(size=(PATIENTS, 1))
        own = generator.normal(size=(PATIENTS, len(CONDITIONS)))
        severity = np.sqrt(0.3) * shared + np.sqrt(0.7) * own
        clean = severity @ weights
        noise = generator.normal(size=clean.shape) * 0.5 * clean.std(axis=0)
        parts.append(1 / (1 + np.exp(-(clean + noise))))
        targets.append(severity > generator.uniform(0.4, 1.2, size=len(CONDITIONS)))
    codes = np.repeat(np.arange(LABEL_SITES, dtype=np.int32), PATIENTS)
    names = tuple(f"hospital-{site:02d}" for site in range(LABEL_SITES))
    return Records(
        features=np.concatenate(parts).astype(np.float32),
        labels=label_alike(CONDITIONS, len(codes)),
        public=PublicConstants(
            input_shape=(MEASUREMENTS,), value_range=(0.0, 1.0), label_names=CONDITIONS
        ),
        sites=Category(codes, names),
        targets=np.concatenate(targets).astype(np.float32),
    )
