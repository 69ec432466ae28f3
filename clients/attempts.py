"""A site's part in one attempt of a secure sum, from message to message.

A simulated site's session stays in the process that stands for it. A real site's process may end
after every message (a SuperNode starts one for each): its session is kept in the site's folder,
together with what was announced, and a later message cannot change what that was. An agent that
lives on holds the session as well, and goes on with it where the folder says the same.
"""

import json
from dataclasses import dataclass
from typing import Final

import numpy as np
from flwr.app import ConfigRecord

from fedtrain.aggregation import compute_model_digest, name_run
from fedtrain.canonical import to_canonical
from fedtrain.config import Config
from fedtrain.errors import PeerError, SiteError
from fedtrain.params import Vector
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.protocol import (
    PREPARATION_TEXT,
    PROXIMAL_MU,
    RATE_FACTOR,
    SERVER_ROUND,
    TRAINING,
    UPDATE_NORM,
)
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.messages import Advertisement, RoundContext
from fedtrain.secagg.policy import SitePolicy
from fedtrain.secagg.replay import DurableSession, load_context, pin_text
from fedtrain.secagg.simulated import make_identity, make_policy
from fedtrain.secagg.site import SiteSession
from fedtrain.secagg.store import MemoryStore

from .custody import Custody
from .site import Site, read_bound_number, read_proximal_mu, read_text

# What of an announcement's config record the round is computed from.
_KEPT: Final = (SERVER_ROUND, PREPARATION_TEXT, PROXIMAL_MU, UPDATE_NORM, RATE_FACTOR)


@dataclass
class Attempt:
    """A site's part in one attempt of one secure sum.

    Attributes:
        session: The protocol's state.
        purpose: TRAINING, EVALUATION or STATISTICS.
        record: What was announced: round, preparation, proximal coefficient, clip.
        vector: Global model, `(d,)`; in a round of SCAFFOLD `(2, d)`, see `read_start`.
        cohort: Most sites that may be summed.
    """

    session: SiteSession | DurableSession
    purpose: str
    record: ConfigRecord
    vector: Vector
    cohort: int


def begin_attempt(
    site: Site, announced: RoundContext, record: ConfigRecord, *, vector: Vector, purpose: str
) -> Advertisement:
    """Check an announcement, keep it, and return this round's signed keys.

    Raises:
        RefusalError: The context is another round's or run's than its message, or policy or record
            of the site forbid to take part.
        SiteError: A real site has no folder, or has joined no federation.
    """
    run = _name_own_run(site, record, purpose)
    if announced.round != int(record[SERVER_ROUND]) or announced.run != run:  # type: ignore[arg-type]
        raise RefusalError("context", "the context is of another round or run than its message")
    session: SiteSession | DurableSession
    if site.simulated:
        _pin_simulated(site, purpose, run)
        label = f"secure {purpose} {announced.attempt}"
        session = SiteSession(
            site.name,
            make_identity(site.config.run.seed, site.name),
            policy=_get_simulated_policy(site),
            store=site.runtime.stores.setdefault(site.index, MemoryStore()),
            generator=site.make_generator(label, announced.round),
        )
    else:
        custody = _get_custody(site)
        pin_text(custody.store, f"run/{site.run}/{purpose}", run)
        session = _open_session(site, custody, announced)
    answer = session.advertise(
        announced,
        config_digest=bytes.fromhex(site.runtime.digest),
        model_digest=compute_model_digest(vector, read_bound_number(site.config, record)),
    )
    attempt = Attempt(session, purpose, record, vector, len(announced.cohort))
    if site.simulated:
        site.runtime.attempts[site.index] = attempt
    else:
        _get_custody(site).store.save(f"announced/{run}", _pack(record, vector))
    return answer


def find_attempt(site: Site, record: ConfigRecord, purpose: str) -> Attempt:
    """Return the attempt that a later message goes on with.

    Raises:
        PeerError: This site has advertised no keys for it.
    """
    if site.simulated:
        kept = site.runtime.attempts.get(site.index)
        if not isinstance(kept, Attempt):
            raise PeerError("this site has not advertised keys for this round")
        return kept
    custody, run = _get_custody(site), _name_own_run(site, record, purpose)
    data = custody.store.load(f"announced/{run}")
    context = load_context(custody.store, run)
    if data is None or context is None:
        raise PeerError("this site has not advertised keys in this run")
    session = _open_session(site, custody, context)
    announced, vector = _unpack(data, rows=count_rows(site.config, purpose))
    digest = compute_model_digest(vector, read_bound_number(site.config, announced))
    if (announced[SERVER_ROUND], digest) != (context.round, context.model_digest):
        # A process ended between the two; the attempt cannot go on.
        raise PeerError("what was announced to this site is of another attempt than its keys")
    return Attempt(session, purpose, announced, vector, len(context.cohort))


def _name_own_run(site: Site, record: ConfigRecord, purpose: str) -> str:
    return name_run(
        site.runtime.digest,
        preparation_text=read_text(record, PREPARATION_TEXT),
        proximal_mu=read_proximal_mu(record),
        purpose=purpose,
        run_id="" if site.simulated else site.run,
    )


def _pin_simulated(site: Site, purpose: str, run: str) -> None:
    if site.runtime.runs.setdefault(purpose, run) != run:
        raise RefusalError("context", "preparation or proximal term changed during the run")


def _get_custody(site: Site) -> Custody:
    if site.custody is None:
        raise SiteError(
            "secure aggregation needs this node's own identity and the federation's roster; name"
            " the site's folder as site-dir in the node's configuration"
        )
    return site.custody


def _open_session(site: Site, custody: Custody, context: RoundContext) -> DurableSession:
    return DurableSession(
        site.name,
        custody.identity,
        policy=custody.load_policy(site.config, context),
        store=custody.store,
        run=context.run,
        generator=SecureGenerator.from_system(),
        live=site.runtime.live.setdefault(site.name, {}),
    )


def _get_simulated_policy(site: Site) -> SitePolicy:
    if site.runtime.policy is None:
        site.runtime.policy = make_policy(
            site.config.run.seed, site.runtime.shards.site_names, site.config.secure_aggregation
        )
    return site.runtime.policy


def _pack(record: ConfigRecord, vector: Vector) -> bytes:
    """Return an announcement as bytes: a line of JSON, then the model."""
    kept = {key: record[key] for key in _KEPT if key in record}
    return to_canonical(kept).encode() + b"\n" + vector.astype("<f4", copy=False).tobytes()


def _unpack(data: bytes, *, rows: int) -> tuple[ConfigRecord, Vector]:
    line, _, rest = data.partition(b"\n")
    vector: Vector = np.frombuffer(rest, "<f4").astype(np.float32)
    return ConfigRecord(json.loads(line)), vector if rows == 1 else vector.reshape(rows, -1)


def count_rows(config: Config, purpose: str) -> int:
    """Return how many vectors are announced: the model, and SCAFFOLD's control variate."""
    return 2 if purpose == TRAINING and config.federation.strategy == "SCAFFOLD" else 1
