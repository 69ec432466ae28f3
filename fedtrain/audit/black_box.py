"""The empirical epsilon of a record for whoever has the final model alone: method `black-box`.

Canaries are real records under wrong labels, in a site's training data by a fair coin each; the
guess is by how much training lowered their loss. They interfere with real records and with each
other, so that the bound is often near 0 where the leak is not: it says what this attack finds.

Shapes: m canaries, n records.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from fedtrain.audit.findings import NO_PROOF, Figure, Finding, Unit, Verdict
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.one_run import (
    Coins,
    Scores,
    bound_epsilon,
    bound_gaussian_epsilon,
    choose_guesses,
    simulate_gaussian,
)
from fedtrain.audit.plants import Subject, find_plant, make_subject
from fedtrain.audit.record_level import decide, describe_verdict, judge, make_claim
from fedtrain.audit.sentinels import draw_coins
from fedtrain.config import Config
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shards, Split
from fedtrain.errors import DataError
from fedtrain.models.registry import build_described_model
from fedtrain.models.saved import load_saved_model
from fedtrain.params import ModelState
from fedtrain.plan import build_record_plan
from fedtrain.seeds import make_numpy_generator, make_torch_generator
from fedtrain.training.local import LocalTask, LocalTrainer, LocalUpdate

METHOD: Final = "black-box"
MAX_CANARIES: Final = 1000
QUICK_CANARIES: Final = 200
MIN_CANARIES: Final = 20
MAX_STEPS: Final = 200
MAX_ROUNDS: Final = 40
QUICK_SHARE: Final = 4
# Guesses are registered for so large a leak where nothing is claimed.
_OPEN_MU: Final = 2.0
_BATCH: Final = 2048


def audit_black_box(context: AuditContext) -> list[Finding]:
    """Train one site's model with canaries among its records; guess from the final model's losses.

    Args:
        context: What is audited.

    Returns:
        One finding, with a verdict where records are protected.

    Raises:
        DataError: The run has too few records for canaries.
    """
    config = context.config
    saved = load_saved_model(context.run, allowed_functions=[config.model.name])
    shards = Shards.open(config)
    preparation = Preparation.from_json(dict(saved.preparation))
    limit = QUICK_CANARIES if context.quick else min(MAX_CANARIES, context.canaries)
    canaries = make_canaries(
        shards, preparation, classes=len(saved.label_names), limit=limit, seed=context.seed
    )
    included = draw_coins(len(canaries), seed=context.seed)
    rounds = count_rounds(config, quick=context.quick)
    plan = build_record_plan(config)
    claim = make_claim(
        config,
        steps=rounds * plan.steps if plan else 0,
        canaries=len(canaries),
        confidence=context.confidence,
    )
    subject = make_subject(config, seed=context.seed, plant=find_plant(context.plant))
    generator = make_torch_generator(context.seed, "audit", "black-box")
    model = build_described_model(saved.architecture, generator).train()
    records = shards.load(0, preparation).train
    scores = score_canaries(
        subject, model, join(records, take(canaries, included)), canaries=canaries, rounds=rounds
    )
    if claim is None:
        return [_describe_open(context, scores, included)]
    figures = judge(scores, included, claim, confidence=context.confidence)
    figures["cost_of_the_audit"] = (
        "to real records of the site, the epsilon claimed, again: a model was trained on them for"
        " the audit, of which only the number of right guesses is kept"
    )
    verdict = decide(figures, confidence=context.confidence)
    sentence = describe_verdict(figures, verdict, confidence=context.confidence)
    return [
        _make_finding(
            context, unit=claim.plan.unit, figures=figures, verdict=verdict, text=sentence
        )
    ]


def count_rounds(config: Config, *, quick: bool) -> int:
    """Return how many of a run's rounds the attacked training has."""
    plan = build_record_plan(config)
    most = max(1, MAX_STEPS // plan.steps) if plan else MAX_ROUNDS
    return max(1, min(config.federation.rounds, most) // (QUICK_SHARE if quick else 1))


def make_canaries(
    shards: Shards, preparation: Preparation, *, classes: int, limit: int, seed: int
) -> Split:
    """Return real records of the other sites under wrong labels, each a person of its own.

    Args:
        shards: The sites' data.
        preparation: The run's.
        classes: Number of labels.
        limit: Most canaries.
        seed: Of the wrong labels.

    Raises:
        DataError: There are fewer than `MIN_CANARIES`.
    """
    found = list(_take_others(shards, preparation, limit))
    count = sum(map(len, found))
    if count < MIN_CANARIES:
        raise DataError(
            f"the other sites have {count} training records, a black-box audit needs at least"
            f" {MIN_CANARIES} as canaries; choose --method sentinels"
        )
    features = np.concatenate([split.features for split in found])
    labels = np.concatenate([split.labels for split in found])
    shifts = make_numpy_generator(seed, "audit", "labels").integers(1, classes, len(labels))
    return Split(features, (labels + shifts) % classes, np.arange(len(labels)))


def score_canaries(
    subject: Subject, model: nn.Module, records: Split, *, canaries: Split, rounds: int
) -> NDArray[np.float64]:
    """Train on a site's records and return by how much each canary's loss fell, `(m,)`.

    Args:
        subject: What is audited.
        model: Start model; its parameters are overwritten.
        records: Those of the site, with the canaries that are in.
        canaries: All of them.
        rounds: How many times local training goes on from where it ended.

    Raises:
        PeerError: Training ended with values that are not finite.
    """
    before = _compute_losses(model, canaries)
    trainer, state = LocalTrainer(model, subject.running), ModelState(model)
    vector = state.read()
    draws = subject.running.training.sampling == "poisson"
    for round_ in range(1, rounds + 1):
        task = LocalTask(
            records=records,
            start=vector,
            shuffling=make_torch_generator(subject.seed, "audit", "shuffling", round_),
            sampling=subject.make_sampling(round_) if draws else None,
            noise=subject.make_noise(round_) if draws else None,
        )
        (update,) = trainer.train([task])
        if not isinstance(update, LocalUpdate):
            raise update
        vector = update.vector
    state.write(vector)
    return before - _compute_losses(model, canaries)


def join(records: Split, more: Split) -> Split:
    """Return two splits as one; each of the second's records is a person of its own."""
    persons = records.persons
    if persons is not None:
        first = int(persons.max(initial=-1)) + 1
        persons = np.concatenate([persons, np.arange(first, first + len(more))])
    return Split(
        np.concatenate([records.features, more.features]),
        np.concatenate([records.labels, more.labels]),
        persons,
    )


def take(records: Split, chosen: NDArray[np.bool_]) -> Split:
    """Return some of the records; whose they are is forgotten."""
    return Split(records.features[chosen], records.labels[chosen])


def _take_others(shards: Shards, preparation: Preparation, limit: int) -> Iterator[Split]:
    """Yield records of every site but the first, which is attacked, up to a number in all."""
    for site in range(1, len(shards)):
        if limit <= 0:
            return
        train = shards.load(site, preparation).train
        yield take(train, np.arange(len(train)) < limit)
        limit -= len(train)


def _compute_losses(model: nn.Module, records: Split) -> NDArray[np.float64]:
    """Return the loss of each record, `(n,)`, finite."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        losses = [
            functional.cross_entropy(
                model(torch.from_numpy(records.features[start : start + _BATCH])),
                torch.from_numpy(records.labels[start : start + _BATCH]),
                reduction="none",
            )
            for start in range(0, len(records), _BATCH)
        ]
    model.train(was_training)
    found: NDArray[np.float64] = np.nan_to_num(torch.cat(losses).double().numpy(), posinf=1e30)
    return found


def _describe_open(context: AuditContext, scores: Scores, included: Coins) -> Finding:
    """Return the finding where nothing is claimed of records."""
    delta, confidence = context.config.privacy.target_delta, context.confidence
    plan = choose_guesses(*simulate_gaussian(_OPEN_MU), canaries=len(scores), confidence=confidence)
    guesses = plan.guess(scores, included)
    bound = bound_gaussian_epsilon(guesses, delta=delta, confidence=confidence)
    figures: dict[str, Figure] = {
        "epsilon_lower_bound": bound,
        "epsilon_lower_bound_steinke": bound_epsilon(guesses, delta=delta, confidence=confidence),
        "epsilon_claimed": None,
        "delta": delta,
        "neighbouring_relation": "add_remove",
        "canaries": guesses.canaries,
        "guesses": guesses.made,
        "guesses_correct": guesses.correct,
        "rounds": count_rounds(context.config, quick=context.quick),
    }
    text = (
        f"{guesses.correct} of {guesses.made} guesses of who was in the data were right; records"
        f" are not protected, and with {100 * confidence:g} % confidence epsilon is at least"
        f" {bound:.2f}. {NO_PROOF}"
    )
    return _make_finding(context, unit="record", figures=figures, verdict="informative", text=text)


def _make_finding(
    context: AuditContext,
    *,
    unit: Unit,
    figures: dict[str, Figure],
    verdict: Verdict,
    text: str,
) -> Finding:
    return Finding(
        method=METHOD,
        title="Empirical epsilon in one run, by the final model's losses",
        threat_model="The attacker has the model that one site's training ended with and the"
        " canaries, and knows every other record.",
        unit=unit,
        sample_size=int(figures["canaries"] or 0),
        confidence=context.confidence,
        seed=context.seed,
        figures=figures,
        verdict=verdict,
        sentence=text,
    )
