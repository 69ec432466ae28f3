"""Federations with canary sites among the real ones: what their sums show of each canary.

Real sites train as they do in a run; a canary sends one random direction, as long as the clip. Each
vector goes through the site's real encoding, with clip, rounding and its share of the noise, and
the sum through the coordinator's decoding. Only the transport is left out. The cohort is so large
that these sites are the fewest survivors that the claim counts on, so that a sum has the claimed
noise and no more.

Shapes: n real sites, k canaries, d parameters, T rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedtrain.audit.one_shot import compute_cosines, draw_directions
from fedtrain.config import Config, build_config, to_tree
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shards, Split
from fedtrain.models.start import build_start_model
from fedtrain.params import ModelState, Vector
from fedtrain.plan import build_site_plan, get_threshold
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.privacy.site_noise import SitePlan
from fedtrain.seeds import derive_seed, make_torch_generator
from fedtrain.statistics.preparing import fit_in_clear
from fedtrain.training.local import LocalTask, LocalTrainer, LocalUpdate
from fedtrain.training_vector import TrainingVector

Floats = NDArray[np.float64]

MAX_REAL_SITES: Final = 10
FEWEST: Final = 5
CROWDING: Final = 0.05  # canaries' share of the length of all noise, squared
_LABEL: Final = "canary sites"


@dataclass(frozen=True)
class Cosines:
    """Cosines of canaries with what was released.

    Attributes:
        final: Of the final model less the start model, of present canaries `(k,)`.
        final_absent: The same of directions that nobody sent, `(k,)`.
        rounds: The largest over all rounds' sums, of present canaries `(k,)`.
        rounds_absent: The same of directions that nobody sent, `(k,)`.
    """

    final: Floats
    final_absent: Floats
    rounds: Floats
    rounds_absent: Floats


@dataclass(frozen=True)
class Federation:
    """Real sites and the model that they train.

    Attributes:
        config: Of the run, resolved.
        records: Training records of each real site.
        start: Start model `(d,)`.
        trainer: Trains a site.
    """

    config: Config
    records: tuple[Split, ...]
    start: Vector
    trainer: LocalTrainer

    def train(self, vector: Vector, round: int, *, seed: int) -> list[Vector]:
        """Return each real site's update of a round, `(d,)`; zero where training diverged."""
        draws = self.config.training.sampling == "poisson"
        updates = []
        for site, records in enumerate(self.records):
            labels = (_LABEL, site, round)
            task = LocalTask(
                records=records,
                start=vector,
                shuffling=make_torch_generator(seed, *labels, "shuffling"),
                sampling=SecureGenerator.from_seed(seed, *labels, "sampling") if draws else None,
                noise=SecureGenerator.from_seed(seed, *labels, "noise") if draws else None,
            )
            (update,) = self.trainer.train([task])
            local = update.vector if isinstance(update, LocalUpdate) else vector
            updates.append(local - vector)
        return updates


def open_federation(config: Config) -> Federation:
    """Open the real sites of a config, the first few of them where there are many.

    Raises:
        FedtrainError: Data or model cannot be used.
    """
    shards = Shards.open(config, strict=True)
    preparation = fit_in_clear(shards, config)
    model = build_start_model(
        config,
        input_shape=preparation.input_shape,
        classes=len(preparation.label_names),
        input_dtype=torch.int64 if preparation.is_discrete else torch.float32,
    )
    start = ModelState(model).read()
    records = _load(shards, preparation)
    return Federation(config, records, start, LocalTrainer(model, config))


def watch_canaries(
    federation: Federation,
    canaries: int,
    *,
    seed: int,
    noised: bool = True,
    running: Config | None = None,
) -> Cosines:
    """Run a federation with canaries and return their cosines.

    Args:
        federation: The real sites.
        canaries: k.
        seed: Of directions, noise and batches.
        noised: False: the same sums without noise and clip, canaries as long as the median of the
            real sites' updates.
        running: The config whose noise is really added, where a test plants a fault.
    """
    size = len(federation.start)
    present = draw_directions(canaries, size, seed=seed, label="present")
    absent = draw_directions(canaries, size, seed=seed, label="absent")
    plan = build_site_plan(federation.config) if noised else None
    vector = federation.start.copy()
    best, best_absent = np.full(canaries, -1.0), np.full(canaries, -1.0)
    for round_ in range(1, federation.config.federation.rounds + 1):
        updates = federation.train(vector, round_, seed=seed)
        if plan is None:
            average = _add_plainly(updates, present)
        else:
            average = _add_noised(
                running or federation.config, plan, updates, directions=present, seed=seed + round_
            )
        vector = vector + average
        released = average.astype(np.float64)
        best = np.maximum(best, compute_cosines(present, released))
        best_absent = np.maximum(best_absent, compute_cosines(absent, released))
    moved = vector.astype(np.float64) - federation.start
    return Cosines(
        compute_cosines(present, moved), compute_cosines(absent, moved), best, best_absent
    )


def count_canaries(federation: Federation) -> int:
    """Return how many canaries one federation can hold before they drown each other.

    Canaries that are there in all T rounds add up to k T^2 clips^2, the noise to d T.
    """
    rounds = federation.config.federation.rounds
    return max(FEWEST, int(CROWDING * len(federation.start) / rounds))


def watch_many(
    federation: Federation,
    canaries: int,
    *,
    seed: int,
    noised: bool = True,
    running: Config | None = None,
) -> Cosines:
    """Return the cosines of so many canaries, over as many federations as they need.

    See `watch_canaries`.
    """
    each = min(canaries, count_canaries(federation))
    watched = [
        watch_canaries(
            federation,
            each,
            seed=derive_seed(seed, _LABEL, run) >> 1,
            noised=noised,
            running=running,
        )
        for run in range(-(-canaries // each))
    ]
    return Cosines(
        np.concatenate([one.final for one in watched]),
        np.concatenate([one.final_absent for one in watched]),
        np.concatenate([one.rounds for one in watched]),
        np.concatenate([one.rounds_absent for one in watched]),
    )


def enlarge(config: Config, survivors: int) -> Config:
    """Return a config whose claim counts on so many honest survivors, or just more.

    Raises:
        ConfigError: The sum would not fit the ring.
    """
    cohort = survivors
    while _count_shares(config, cohort) < survivors:
        cohort += 1
    tree = to_tree(config)
    tree["partition"] = {"sites": cohort}
    federation = tree["federation"]
    for key in ("sites_per_round", "site_sample_rate"):
        federation.pop(key, None)
    tree["secure_aggregation"].pop("threshold", None)
    return build_config(tree, name="canary sites")


def _count_shares(config: Config, cohort: int) -> int:
    plan = build_site_plan(_set_sites(config, cohort))
    if plan is None:
        raise ValueError("the config has no privacy of sites")
    return plan.count_shares(cohort, get_threshold(config, cohort))


def _set_sites(config: Config, sites: int) -> Config:
    partition = config.partition.model_copy(update={"sites": sites})
    changes = {"sites_per_round": None, "site_sample_rate": None}
    federation = config.federation.model_copy(update=changes)
    secure = config.secure_aggregation.model_copy(update={"threshold": None})
    return config.model_copy(
        update={"partition": partition, "federation": federation, "secure_aggregation": secure}
    )


def _add_noised(
    config: Config, plan: SitePlan, updates: Sequence[Vector], *, directions: Floats, seed: int
) -> Vector:
    """Return the decoded average of a round's noised sum, `(d,)`."""
    survivors = len(updates) + len(directions)
    large = enlarge(config, survivors)
    clip = plan.first_update_norm
    layout = TrainingVector(large, size=directions.shape[1], cohort=large.partition.sites or 0)
    rounding = SecureGenerator.from_seed(seed, _LABEL, "rounding")
    noise = SecureGenerator.from_seed(seed, _LABEL, "noise shares")
    # A little longer than the clip, so that the clip is what makes them as long as it allows.
    sent = [*updates, *(1.01 * clip * directions).astype(np.float32)]
    total = None
    for update in sent:
        words = layout.encode(update, weight=1, train_loss=0.0, rounding=rounding, noise=noise)
        total = words if total is None else total + words
    if total is None:
        raise ValueError("there is nobody to add up")
    return layout.decode(total, survivors=survivors, noise=noise).average


def _add_plainly(updates: Sequence[Vector], directions: Floats) -> Vector:
    norm = float(np.median([np.linalg.norm(update) for update in updates]))
    total = np.sum(updates, axis=0) + norm * directions.sum(axis=0)
    average: Vector = (total / (len(updates) + len(directions))).astype(np.float32)
    return average


def _load(shards: Shards, preparation: Preparation) -> tuple[Split, ...]:
    splits = [shards.load(site, preparation).train for site in range(len(shards))]
    splits = [split for split in splits if len(split)]
    return tuple(splits[:MAX_REAL_SITES])
