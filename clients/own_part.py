"""What a site has for itself in a round of training: a control variate, layers, a model of its own.

None of it leaves. Local layers are taken out of the update; a model of its own (Ditto) is trained
beside the one that is sent, with draws of its own, and does not change a bit of it.

Shapes: d is the length of the flat parameter vector, n the records of the site.

Guarantees:
    * What is sent under differential privacy rests on records through noised gradients alone. A
      control variate and local layers that were kept come from earlier noised rounds, so that later
      rounds that start from them compose as rounds do; Ditto's model never touches the update.
    * Where a local layer stands in the vector, the update is exactly zero.

A site whose update is lost on its way, or refused by a bound, has moved its control variate all the
same; the coordinator's, which follows from the sum, has not: they drift apart by that much.

References:
    Local layers: FedBN, Li et al. 2021. Ditto: Li, Hu, Beirami and Smith 2021. Control variates:
    SCAFFOLD, Karimireddy et al. 2020, algorithm 1, option II.
"""

from dataclasses import dataclass, replace

import numpy as np

from fedtrain.data.shards import Split
from fedtrain.errors import PeerError
from fedtrain.local_layers import restore_local_layers
from fedtrain.params import Vector
from fedtrain.seeds import make_torch_generator
from fedtrain.training.local import LocalTask, LocalUpdate

from .site import Site

CONTROL = "control"
LAYERS = "layers"
MODEL = "model"


@dataclass(frozen=True)
class Begun:
    """What a site's training begins from.

    Attributes:
        model: `(d,)`.
        correction: Added to each gradient, `(d,)`; None without SCAFFOLD.
    """

    model: Vector
    correction: Vector | None = None


def begin_round(site: Site, start: Vector, round: int) -> Begun:
    """Return what training begins from.

    Args:
        site: The site.
        start: See `read_start`.
        round: Number of the round.
    """
    if start.ndim == 2:
        model, control = start
        own = site.kept.load(before=round).get(CONTROL)
        return Begun(model, control if own is None else control - own)
    return Begun(merge_local_layers(site, start, before=round))


def end_round(
    site: Site, start: Vector, round: int, *, update: LocalUpdate, records: Split
) -> LocalUpdate:
    """Keep what is the site's own, and return the update without it.

    Args:
        site: The site.
        start: What `begin_round` was given.
        round: Number of the round.
        update: What training gave.
        records: What it was trained on.
    """
    if start.ndim == 2:
        _keep_control(site, start, round, update)
        return update
    section = site.config.personalisation
    if section is None:
        return update
    if section.local_layers:
        site.kept.save(round, {LAYERS: update.vector})
        sent = restore_local_layers(site.runtime.layout, section.local_layers, update.vector, start)
        return replace(update, vector=sent)
    if section.model == "ditto":
        _train_ditto(site, start, round, records)
    return update


def merge_local_layers(site: Site, vector: Vector, *, before: int) -> Vector:
    """Return a global model `(d,)` with the site's own layers in their place."""
    section = site.config.personalisation
    if section is None or not section.local_layers:
        return vector
    own = site.kept.load(before=before).get(LAYERS)
    if own is None:
        return vector
    return restore_local_layers(site.runtime.layout, section.local_layers, vector, own)


def load_own_model(site: Site, vector: Vector, *, round: int, records: Split) -> Vector | None:
    """Return the site's own model after a round `(d,)`; None where there is none yet.

    Args:
        site: The site.
        vector: The global model with the site's layers in it, `(d,)`.
        round: Number of the round.
        records: The site's training records, which a fine-tuned model is trained on.
    """
    section = site.config.personalisation
    if section is None or section.model is None:
        return None
    if section.model == "ditto":
        return site.kept.load(before=round + 1).get(MODEL, vector)
    if round < site.config.federation.rounds:
        return None
    own = _train_own(site, vector, round, records)
    site.kept.save(round, site.kept.load(before=round + 1) | {MODEL: own})
    return own


def _keep_control(site: Site, start: Vector, round: int, update: LocalUpdate) -> None:
    """Keep the new control variate: c_i - c + (x - y_i) / (K eta)."""
    model, control = start
    own = site.kept.load(before=round).get(CONTROL, np.zeros_like(control))
    training = site.config.training
    reach = (training.local_steps or 1) * training.learning_rate
    site.kept.save(round, {CONTROL: own - control + (model - update.vector) / np.float32(reach)})


def _train_ditto(site: Site, start: Vector, round: int, records: Split) -> None:
    section = site.config.personalisation
    own = site.kept.load(before=round).get(MODEL, start)
    pull = 0.0 if section is None else section.ditto_lambda
    own = _train_own(site, own, round, records, anchor=start, pull=pull)
    site.kept.save(round, {MODEL: own})


def _train_own(
    site: Site,
    vector: Vector,
    round: int,
    records: Split,
    *,
    anchor: Vector | None = None,
    pull: float = 0.0,
) -> Vector:
    """Return what the own model becomes; where that is not finite, or of no records, as it was."""
    if not len(records.labels):
        return vector
    task = LocalTask(
        records=records,
        start=vector,
        shuffling=make_torch_generator(site.config.run.seed, "own model", site.name, round),
        sampling=None,
        noise=None,
        proximal_mu=pull,
        anchor=anchor,
    )
    (update,) = site.runtime.own_trainer.train([task])
    return vector if isinstance(update, PeerError) else update.vector
