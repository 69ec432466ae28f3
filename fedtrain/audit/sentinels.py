"""Sentinels: canaries that interfere with nothing, watched through the real step of DP-SGD.

A table is added to the model, in which each sentinel owns one row that no record reads. A
sentinel's gradient is in its own row alone and far above the clip, so that a step releases of it
exactly its presence in the batch, times the clip, plus the noise: the mechanism's worst case, and
nothing of any record. Ordinary canaries fail here: real gradients and other canaries hide them.

Shapes: m sentinels, T steps, n records at the site.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedtrain.audit.one_run import Coins, Scores
from fedtrain.audit.plants import Subject
from fedtrain.config import Config
from fedtrain.data.shards import Split
from fedtrain.params import ModelState, Vector, exchanged_tensors
from fedtrain.plan import RecordPlan, build_record_plan
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.training.local import LocalTask, LocalTrainer, LocalUpdate, PoissonSampler

# A sentinel's gradient before clipping, in clips.
PULL: Final = 1e4
SIMULATED: Final = 30_000
_TABLE: Final = "table.weight"


class SentinelModel(nn.Module):
    """A model beside a table of sentinels; a record's first value says which sentinel it is.

    0 is none: such a record goes through the model and reads row 0, with a gradient of exactly 0.
    Any other record reads its row alone, and the model learns nothing of it.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        *,
        sentinels: int,
        max_grad_norm: float,
    ) -> None:
        """Put a table beside a model.

        Args:
            model: What real records go through.
            input_shape: Of one of them.
            sentinels: m.
            max_grad_norm: The clip that a sentinel's gradient must be far above.
        """
        super().__init__()
        self.model = model
        self.table = nn.Embedding(sentinels + 1, 1)
        nn.init.zeros_(self.table.weight)
        self._pull = PULL * max(1.0, max_grad_norm)
        self._shape = input_shape

    def forward(self, packed: Tensor) -> Tensor:
        """Return the logits of records `(B, 1 + size)`."""
        ids = packed[:, :1].long()
        logits: Tensor = self.model(packed[:, 1:].reshape(-1, *self._shape))
        own = functional.pad(self._pull * self.table(ids).squeeze(2), (0, logits.shape[1] - 1))
        return torch.where(ids > 0, own, logits)


@dataclass(frozen=True)
class Observed:
    """What the steps of a site showed.

    Attributes:
        rows: `(T, m)` float32: each sentinel's row after each step, in clips: its presence in the
            batch plus noise of deviation `noise_multiplier`, if all is as claimed.
        batch_sizes: `(T,)` int64: records or persons that the sampler drew for each step.
        units: Records or persons that it drew from.
        asked: How often the sampler was asked.
    """

    rows: NDArray[np.float32]
    batch_sizes: NDArray[np.int64]
    units: int
    asked: int


@dataclass
class _CountingSampler:
    """Draws as another sampler does, and counts."""

    sampler: PoissonSampler
    sizes: list[int] = field(default_factory=list)
    units: set[int] = field(default_factory=set)

    def draw_poisson_subset(self, n: int, *, rate: float) -> NDArray[np.int64]:
        """See `PoissonSampler`."""
        drawn = self.sampler.draw_poisson_subset(n, rate=rate)
        self.sizes.append(len(drawn))
        self.units.add(n)
        return drawn


def draw_coins(sentinels: int, *, seed: int) -> NDArray[np.bool_]:
    """Return who is in, `(m,)`: a fair coin each, from a stream of their own."""
    return SecureGenerator.from_seed(seed, "audit", "coins").draw_uniform(sentinels) < 0.5


def watch_steps(
    subject: Subject,
    model: nn.Module,
    records: Split,
    *,
    included: NDArray[np.bool_],
    steps: int,
) -> Observed:
    """Train at a site with sentinels among its records, and read their rows after every step.

    Every step is a task of one step for `fedtrain.training.local.LocalTrainer`, from the model
    that the step before left: sampler, clipping, noise and divisor are those of a run. Rows begin
    each step at zero, so that what a step adds can be read off; which is post-processing.

    Args:
        subject: Whose plan, and what is broken of it.
        model: Start model; its parameters are overwritten.
        records: Real records of the site, which train the model as they would.
        included: `(m,)`, who of the sentinels is among them.
        steps: T.

    Raises:
        PeerError: Training ended with values that are not finite.
    """
    plan = _require_plan(subject.claim)
    sentinel_model = make_model(model, records, sentinels=len(included), plan=plan)
    trainer = LocalTrainer(sentinel_model, _take_single_steps(subject.running))
    packed = pack(records, np.flatnonzero(included) + 1)
    place = find_table(sentinel_model)
    vector = ModelState(sentinel_model).read()
    rows = np.empty((steps, len(included)), np.float32)
    counts = []
    for step, (noise, sampling) in enumerate(_make_generators(subject, plan, steps)):
        counting = _CountingSampler(sampling)
        vector[place] = 0.0
        vector = _take_step(trainer, packed, start=vector, sampling=counting, noise=noise)
        rows[step] = vector[place][1:]
        counts.append(counting)
    scale = plan.expected_batch_size / (subject.running.training.learning_rate * plan.max_grad_norm)
    return Observed(
        rows=rows * np.float32(scale),
        batch_sizes=np.array([sum(one.sizes) for one in counts], np.int64),
        units=max((max(one.units, default=0) for one in counts), default=0),
        asked=sum(len(one.sizes) for one in counts),
    )


def score_rows(rows: NDArray[np.float32], plan: RecordPlan) -> NDArray[np.float64]:
    """Return each sentinel's log-likelihood ratio of being in, over all steps, `(m,)`.

    The best score that there is, by Neyman and Pearson: the steps are independent, and each shows
    N(0, s^2) without the sentinel and with it, at rate q, N(0, s^2) or N(1, s^2).

    Args:
        rows: `(T, m)`, as `Observed` has them.
        plan: The claim, with noise.
    """
    rate, variance = plan.sample_rate, plan.noise_multiplier**2
    odds = (2 * rows.astype(np.float64) - 1) / (2 * variance)
    stay = math.log1p(-rate) if rate < 1 else -math.inf
    scores: NDArray[np.float64] = np.logaddexp(stay, math.log(rate) + odds).sum(axis=0)
    return scores


def simulate_scores(
    plan: RecordPlan, steps: int, *, noise_divisor: float = 1.0
) -> tuple[Scores, Coins]:
    """Return scores and coins as a plan's steps would give them; nothing is trained.

    Args:
        plan: The claim.
        steps: T.
        noise_divisor: So many times too little noise is added, which the score knows nothing of.

    Returns:
        `(SIMULATED,)` each, the same for equal plans.
    """
    generator = np.random.default_rng(0)
    included = generator.random(SIMULATED) < 0.5
    scores = np.zeros(SIMULATED)
    for _ in range(steps):
        present = included & (generator.random(SIMULATED) < plan.sample_rate)
        noise = generator.standard_normal(SIMULATED, dtype=np.float32)
        rows = present + noise * np.float32(plan.noise_multiplier / noise_divisor)
        scores += score_rows(rows[None], plan)
    return scores, included


def make_model(
    model: nn.Module, records: Split, *, sentinels: int, plan: RecordPlan
) -> SentinelModel:
    """Return the model beside a table for so many sentinels."""
    return SentinelModel(
        model, records.features.shape[1:], sentinels=sentinels, max_grad_norm=plan.max_grad_norm
    )


def pack(records: Split, sentinels: NDArray[np.int64]) -> Split:
    """Return records, then sentinels by their number from 1, in the form of `SentinelModel`.

    Each sentinel is a person of its own where the records have persons.
    """
    flat = records.features.reshape(len(records), -1)
    size = int(np.prod(records.features.shape[1:]))
    packed = np.zeros((len(records) + len(sentinels), 1 + size), flat.dtype)
    packed[: len(records), 1:] = flat
    packed[len(records) :, 0] = sentinels
    labels = np.concatenate([records.labels, np.zeros(len(sentinels), np.int64)])
    persons = records.persons
    if persons is not None:
        first = int(persons.max(initial=-1)) + 1
        persons = np.concatenate([persons, np.arange(first, first + len(sentinels))])
    return Split(packed, labels, persons)


def find_table(model: SentinelModel) -> slice:
    """Return where the table lies in the model's flat vector."""
    start = 0
    for name, tensor in exchanged_tensors(model).items():
        if name == _TABLE:
            return slice(start, start + tensor.numel())
        start += tensor.numel()
    raise ValueError("the model has no table of sentinels")


def _make_generators(
    subject: Subject, plan: RecordPlan, steps: int
) -> Iterator[tuple[SecureGenerator, PoissonSampler]]:
    """Yield each step's generators of noise and samples; a round's steps share theirs."""
    for step in range(steps):
        if step % plan.steps == 0:
            noise = subject.make_noise(step // plan.steps + 1)
            sampling = subject.make_sampling(step // plan.steps + 1)
        yield noise, sampling


def _take_step(
    trainer: LocalTrainer,
    records: Split,
    *,
    start: Vector,
    sampling: PoissonSampler,
    noise: SecureGenerator,
) -> Vector:
    task = LocalTask(records, start, torch.Generator(), sampling, noise)
    (update,) = trainer.train([task])
    if not isinstance(update, LocalUpdate):
        raise update
    return update.vector


def _take_single_steps(config: Config) -> Config:
    """Return the config whose local training is one plain step, from which its gradient is read."""
    plain = {
        "local_steps": 1,
        "local_epochs": None,
        "optimiser": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
    }
    return config.model_copy(update={"training": config.training.model_copy(update=plain)})


def _require_plan(config: Config) -> RecordPlan:
    plan = build_record_plan(config)
    if plan is None:
        raise ValueError("sentinels watch steps of DP-SGD, and the config has none")
    return plan
