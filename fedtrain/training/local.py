"""What a site computes in a round: local training and evaluation.

A `LocalTrainer` owns one model and is handed its share of the cohort, one `LocalTask` a site, so
that a trainer that runs many sites as one batched program can take its place. Each task starts
from the global model with a fresh optimiser.

Shapes: n records at the site, d the length of the flat parameter vector.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtrain.config import Config
from fedtrain.data.shards import Split
from fedtrain.errors import DataError, PeerError
from fedtrain.params import Layout, ModelState, Vector, is_finite
from fedtrain.plan import build_record_plan
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.training.augmentation import Augmentation
from fedtrain.training.devices import find_device, occupying
from fedtrain.training.dp_sgd import PrivateGradients
from fedtrain.training.gradients import differentiate
from fedtrain.training.losses import build_loss
from fedtrain.training.masking import Hiding, start_hiding
from fedtrain.training.measures import Sums, build_measure, take_targets
from fedtrain.training.memory import Memory
from fedtrain.training.optimisers import Optimiser, Watched, build_optimiser
from fedtrain.training.pull import Pull
from fedtrain.training.quantisation import RoundedWeights
from fedtrain.user_function import is_function_reference

EVALUATION_BATCH = 2048
_NO_PULL = Pull()
Persons = NDArray[np.int64]


class PoissonSampler(Protocol):
    """Draws Poisson batches: a `SecureGenerator`, or in a test what stands for one."""

    def draw_poisson_subset(self, n: int, *, rate: float) -> NDArray[np.int64]:
        """Return which of n records join a step, ascending; each does with probability `rate`."""


@dataclass(frozen=True)
class LocalTask:
    """One site's part of a round.

    Attributes:
        records: The site's training records.
        start: Global model, `(d,)`.
        shuffling: Order of shuffled batches; what steps draw for their records beside sampling and
            noise, such as units left out. Under record-level privacy secret, as those are.
        sampling: Poisson batches; no other draws come from it. None where batches are shuffled.
        noise: Gaussian noise of DP-SGD; no other draws come from it. None where `sampling` is.
        proximal_mu: FedProx's coefficient; 0 is none.
        anchor: What it pulls towards, `(d,)`; by default `start`.
        correction: SCAFFOLD's, added to the gradient of every step, `(d,)`; None is none.
        rate_factor: What the round's schedule multiplies the learning rate by.
    """

    records: Split
    start: Vector
    shuffling: torch.Generator = field(repr=False)
    sampling: PoissonSampler | None = field(repr=False)
    noise: SecureGenerator | None = field(repr=False)
    proximal_mu: float = 0.0
    anchor: Vector | None = field(default=None, repr=False)
    correction: Vector | None = field(default=None, repr=False)
    rate_factor: float = 1.0


@dataclass(frozen=True)
class LocalUpdate:
    """What local training made of a task.

    Attributes:
        vector: Local model, `(d,)`, finite.
        train_loss: Mean loss over the records seen, before each step; not protected.
        steps: Optimiser steps taken.
        gradient_norm: Geometric mean of the norms of the steps' gradients; None where the config
            does not ask for it.
    """

    vector: Vector
    train_loss: float
    steps: int
    gradient_norm: float | None = None


class LocalTrainer:
    """Trains and evaluates one model on many sites' records in turn."""

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        *,
        private: bool = True,
        memory: Memory | None = None,
    ) -> None:
        """Take a model over.

        Args:
            model: Its parameters are overwritten by every task.
            config: The resolved config.
            private: False where only evaluation is wanted, so that nothing is hooked in.
            memory: What every step is pulled towards; None is nothing.
        """
        self._memory = memory
        self._device = find_device(config)
        self._model = model.to(self._device)
        self._training = config.training
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._state = ModelState(model)
        self._config = config
        self._loss = build_loss(config)
        self._measure = build_measure(config, classes=0)  # adds up, and reads nothing
        self._augmentation = config.data.augmentation
        few = None if config.compression is None else config.compression.quantise_training
        self._rounded = None if few is None else RoundedWeights(self._parameters, few)
        plan = build_record_plan(config) if private else None
        self._by_person = plan is not None and plan.unit == "person"
        self._private = None if plan is None else PrivateGradients(model, plan, loss=self._loss)
        self._draws_units = config.model.dropout is not None or config.model.name == "vae"
        # A model of the user's own may draw, too: without a seed of its own from torch's default.
        self._draws_units |= plan is not None and is_function_reference(config.model.name)

    @property
    def layout(self) -> Layout:
        """Names and shapes of the model's exchanged tensors."""
        return self._state.layout

    def train(self, tasks: Sequence[LocalTask]) -> Iterator[LocalUpdate | PeerError]:
        """Train each task from its start; yield its update, or why there is none.

        A loss or parameter that is not finite spoils one task, not the share.
        """
        for task in tasks:
            try:
                with occupying(self._device):
                    update = self._train_one(task)
                yield update
            except PeerError as error:
                yield error

    def evaluate(self, vector: Vector, records: Split, *, histograms: bool = True) -> Sums:
        """Return the metric sums of a global model `(d,)` over records.

        Raises:
            PeerError: The model's outputs are not finite.
        """
        self._state.write(vector)
        if self._rounded is not None:
            self._rounded.round()
        self._model.eval()
        total: Sums | None = None
        hiding = start_hiding(self._config, None)
        with torch.no_grad(), occupying(self._device):
            for features, labels in _split_batches(*self._place(records)):
                logits = self._model(features if hiding is None else hiding.apply(features))
                if not bool(torch.isfinite(logits).all()):
                    raise PeerError("the global model's outputs are not finite at this site")
                targets = take_targets(features, labels, self._config)
                sums = self._measure.compute(logits, targets, labels, histograms=histograms)
                total = sums if total is None else total + sums
        if total is None:
            raise PeerError("there are no records to evaluate on")
        return total

    def _train_one(self, task: LocalTask) -> LocalUpdate:
        self._state.write(task.start)
        if not self._model.training:
            self._model.train()
        optimiser = build_optimiser(self._training, self._parameters, rate_factor=task.rate_factor)
        watched = Watched(optimiser) if self._training.gradient_norms else None
        pull = self._make_pull(task)
        run = self._run_shuffled if self._training.sampling == "shuffle" else self._run_poisson
        if self._rounded is not None:
            self._rounded.round()
        with self._seed_dropout(task.shuffling):
            loss_sum, seen, steps = run(task, watched or optimiser, pull)
        if self._rounded is not None:
            self._rounded.restore()
        vector = self._state.read()
        if not is_finite(vector) or not math.isfinite(loss_sum):
            raise PeerError(
                f"local training ended with a loss or a parameter that is not finite after {steps}"
                " steps; lower training.learning_rate or check the data"
            )
        norm = None if watched is None else watched.compute_mean_norm()
        return LocalUpdate(vector, loss_sum / seen if seen else 0.0, steps, norm)

    @contextmanager
    def _seed_dropout(self, generator: torch.Generator) -> Iterator[None]:
        """Let what a model draws, units left out or codes, follow from the task alone."""
        if not self._draws_units:
            yield
            return
        seed = int(torch.randint(2**63 - 1, (), generator=generator, dtype=torch.int64))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield

    def _place(self, records: Split) -> tuple[Tensor, Tensor]:
        """Return a split's features and labels, where the model is."""
        features, labels = torch.from_numpy(records.features), torch.from_numpy(records.labels)
        return features.to(self._device), labels.to(self._device)

    def _compute_loss(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        if not self._training.mixed_precision:
            return self._loss(self._model(features), labels, reduction=reduction)
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            return self._loss(self._model(features), labels, reduction=reduction)

    def _start_views(self, generator: torch.Generator) -> Augmentation | Hiding | None:
        """Return what draws the views of a task's steps, where records are changed or hidden."""
        if self._augmentation is None:
            return start_hiding(self._config, generator)
        key = int(torch.randint(2**63 - 1, (), generator=generator, dtype=torch.int64))
        return Augmentation(self._augmentation, key.to_bytes(8, "big"))

    def _run_shuffled(
        self, task: LocalTask, optimiser: Optimiser, pull: Pull
    ) -> tuple[float, int, int]:
        """Take steps over shuffled batches; return the loss sum, records seen and steps."""
        if not len(task.records):
            raise PeerError("there are no records to train on")
        features, labels = self._place(task.records)
        labels = take_targets(features, labels, self._config)
        loss_sum, seen, steps = 0.0, 0, 0
        views = self._start_views(task.shuffling)
        for batch_features, batch_labels in self._shuffle(features, labels, task.shuffling):
            if views is not None:
                batch_features = views.apply(batch_features)
            loss = self._compute_loss(batch_features, batch_labels)
            # Not named, so that they are freed before the next are made: 6 % of a CNN's step.
            self._step(optimiser, differentiate(loss, self._parameters), pull)
            loss_sum += loss.item() * len(batch_labels)
            seen += len(batch_labels)
            steps += 1
        return loss_sum, seen, steps

    def _shuffle(
        self, features: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        size, steps = self._training.batch_size, self._training.local_steps
        taken, epoch = 0, 0
        while epoch < (self._training.local_epochs or 1) if steps is None else taken < steps:
            order = torch.randperm(len(labels), generator=generator).to(self._device)
            # One gather an epoch; the batches are views.
            pairs = zip(
                torch.split(features.index_select(0, order), size),
                torch.split(labels.index_select(0, order), size),
                strict=True,
            )
            for pair in pairs:
                if steps is not None and taken == steps:
                    return
                yield pair
                taken += 1
            epoch += 1

    def _run_poisson(
        self, task: LocalTask, optimiser: Optimiser, pull: Pull
    ) -> tuple[float, int, int]:
        """Take the plan's steps, each on a Poisson batch, an empty one included."""
        features, labels = self._place(task.records)
        labels = take_targets(features, labels, self._config)
        rate, steps = self._training.sample_rate or 0.0, self._training.local_steps or 0
        if task.sampling is None or task.noise is None:
            raise ValueError("a task of Poisson batches needs generators of masks and noise")
        loss_sum, seen = 0.0, 0
        persons, views = self._get_persons(task.records), self._start_views(task.shuffling)
        for _ in range(steps):
            batch = _draw_batch(task.sampling, len(labels), rate=rate, persons=persons)
            chosen = torch.from_numpy(batch).to(self._device)
            owners = None if persons is None else torch.from_numpy(persons[batch])
            inputs = features[chosen] if views is None else views.apply(features[chosen])
            gradients, batch_loss = self._compute(inputs, labels[chosen], task.noise, owners=owners)
            self._step(optimiser, gradients, pull)
            del gradients  # before the next are made
            loss_sum += batch_loss
            seen += len(chosen)
        return loss_sum, seen, steps

    def _get_persons(self, records: Split) -> Persons | None:
        """Return the person of each record, `(n,)`, where a person is what joins a step."""
        if not self._by_person:
            return None
        if records.persons is None:
            raise DataError("privacy.unit = 'person' needs the person of each record")
        return records.persons

    def _compute(
        self, features: Tensor, labels: Tensor, noise: SecureGenerator, *, owners: Tensor | None
    ) -> tuple[Sequence[Tensor], float]:
        """Return the gradients of a Poisson batch and the sum of its losses."""
        if self._private is not None:
            return self._private.compute(features, labels, noise=noise, owners=owners)
        if not len(labels):
            return [torch.zeros_like(p) for p in self._parameters], 0.0
        divisor = self._training.expected_batch_size or 1.0
        loss = self._compute_loss(features, labels, reduction="sum")
        gradients = differentiate(loss / divisor, self._parameters)
        return gradients, float(loss.detach())

    def _step(self, optimiser: Optimiser, gradients: Sequence[Tensor], pull: Pull) -> None:
        if self._rounded is not None:
            self._rounded.restore()
        gradients = pull.add(gradients, self._parameters)
        if self._memory is not None:
            gradients = self._memory.add(gradients, self._parameters)
        optimiser.step(gradients)
        if self._rounded is not None:
            self._rounded.round()

    def _make_pull(self, task: LocalTask) -> Pull:
        """Return what the task adds to every gradient."""
        if not task.proximal_mu and task.correction is None:
            return _NO_PULL
        anchor = self._copy_parameters(task.start if task.anchor is None else task.anchor)
        correction = () if task.correction is None else self._copy_parameters(task.correction)
        return Pull(task.proximal_mu, anchor, correction)

    def _copy_parameters(self, vector: Vector) -> list[Tensor]:
        """Return the part of a flat vector `(d,)` that belongs to each trained parameter."""
        parts = self._state.layout.split(vector)
        named = self._model.named_parameters()
        return [
            torch.from_numpy(parts[name].copy()).to(self._device)
            for name, p in named
            if p.requires_grad
        ]


def _draw_batch(
    sampling: PoissonSampler, records: int, *, rate: float, persons: Persons | None
) -> Persons:
    """Return the indices of a Poisson batch: of records, or of all records of persons."""
    if persons is None:
        return sampling.draw_poisson_subset(records, rate=rate)
    joined = np.zeros(int(persons.max(initial=-1)) + 1, dtype=np.bool_)
    joined[sampling.draw_poisson_subset(len(joined), rate=rate)] = True
    return np.flatnonzero(joined[persons])


def _split_batches(features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = EVALUATION_BATCH
    return zip(torch.split(features, size), torch.split(labels, size), strict=True)
