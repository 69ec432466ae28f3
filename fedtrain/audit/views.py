"""What a coordinator sees of one site's step, in four settings, made by the code of a real run.

    raw      the gradient of the site's batch, as it is
    dp       clipped record by record and noised (`fedtrain.training.dp_sgd`)
    masked   one site's masked vector, all that a coordinator has of it (`fedtrain.secagg`)
    sum      the secure sum over the cohort, divided by its size

Each is one step on few records: the best case for an attacker. More steps and larger batches mix
more.

Shapes: B records of a batch, d parameters.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtrain.audit.inversion import compute_gradient
from fedtrain.config import Config, SecureAggregationSection
from fedtrain.data.shards import Split
from fedtrain.plan import RecordPlan
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import (
    Block,
    CoordinatorSession,
    MemoryStore,
    SiteSession,
    VectorEncoding,
    compute_default_threshold,
)
from fedtrain.secagg.graph import plan_graph
from fedtrain.secagg.masks import Words
from fedtrain.secagg.messages import RoundContext, SignedRoster
from fedtrain.secagg.roster import compute_roster_digest
from fedtrain.secagg.simulated import FEDERATION, make_identity, make_policy
from fedtrain.training.dp_sgd import PrivateGradients

Setting = Literal["raw", "dp", "masked", "sum"]
SETTINGS: Final[tuple[Setting, ...]] = ("raw", "dp", "masked", "sum")
# Noise and clip where the run has no privacy of records: an example, and reported as one.
REFERENCE_NOISE: Final = 1.0
REFERENCE_CLIP: Final = 1.0
_UPDATE: Final = "update"


@dataclass(frozen=True)
class Views:
    """The four views of the first site's step.

    Attributes:
        gradients: What the coordinator takes for the mean gradient, `(d,)`, by setting.
        batches: Each site's records; the attacked site's are the first.
    """

    gradients: dict[Setting, Tensor]
    batches: tuple[Split, ...]


def make_views(
    model: nn.Module,
    batches: Sequence[Split],
    *,
    plan: RecordPlan | None,
    section: SecureAggregationSection,
    seed: int,
    raw: Sequence[Tensor] | None = None,
) -> Views:
    """Take one step at each site and return what is seen of it.

    Args:
        model: At the global parameters; left as it is.
        batches: Records of each site of the cohort, at least three; B of each.
        plan: The run's DP-SGD; None: the reference noise and clip.
        section: Of secure aggregation.
        seed: Of noise, rounding and keys.
        raw: Each batch's gradient, as `compute_raw` has it, where it is known.
    """
    if raw is None:
        raw = [compute_raw(model, batch) for batch in batches]
    masked, mean = _aggregate([part.numpy() for part in raw], section, seed)
    gradients: dict[Setting, Tensor] = {
        "raw": raw[0],
        "dp": _privatise(model, batches[0], plan, seed),
        "masked": torch.from_numpy(masked),
        "sum": torch.from_numpy(mean),
    }
    return Views(gradients, tuple(batches))


def compute_raw(model: nn.Module, batch: Split) -> Tensor:
    """Return the gradient of the mean loss of a batch, `(d,)`."""
    return compute_gradient(model, torch.from_numpy(batch.features), torch.from_numpy(batch.labels))


def list_protections(config: Config) -> list[Setting]:
    """Return the views that a run's protections, each taken alone, leave its coordinator."""
    views: list[Setting] = ["dp"] if config.privacy.covers_records else []
    return views + (["sum"] if config.secure_aggregation.mode == "protocol" else [])


def make_reference_plan(batch_size: int) -> RecordPlan:
    """Return the DP-SGD that a run without privacy of records is shown beside."""
    return RecordPlan(
        noise_multiplier=REFERENCE_NOISE,
        sample_rate=1.0,
        steps=1,
        max_grad_norm=REFERENCE_CLIP,
        expected_batch_size=batch_size,
    )


def _privatise(model: nn.Module, batch: Split, plan: RecordPlan | None, seed: int) -> Tensor:
    plan = plan or make_reference_plan(len(batch))
    private = PrivateGradients(copy.deepcopy(model), plan)
    parts, _ = private.compute(
        torch.from_numpy(batch.features),
        torch.from_numpy(batch.labels),
        noise=SecureGenerator.from_seed(seed, "views", "noise"),
    )
    return torch.cat([part.reshape(-1) for part in parts])


def _aggregate(
    vectors: Sequence[NDArray[np.float32]], section: SecureAggregationSection, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run one secure sum; return the first vector as it was masked, and the mean, each decoded."""
    bound = max(section.max_update_norm, *(1.01 * float(np.linalg.norm(v)) for v in vectors))
    size = len(vectors[0])
    encoding = VectorEncoding(
        (Block(_UPDATE, size, bound),), cohort=len(vectors), ring_bits=section.ring_bits
    )
    rounding = SecureGenerator.from_seed(seed, "views", "rounding")
    words = [encoding.encode({_UPDATE: v}, generator=rounding) for v in vectors]
    masked, total = run_secure_sum(words, section, seed)
    alone = encoding.decode_sum(masked, 1)[_UPDATE]
    mean = encoding.decode_sum(total, len(vectors))[_UPDATE] / len(vectors)
    return alone.astype(np.float32), mean.astype(np.float32)


def run_secure_sum(
    words: Sequence[Words], section: SecureAggregationSection, seed: int
) -> tuple[Words, Words]:
    """Run the protocol over simulated sites, all of which survive.

    Args:
        words: One encoded vector a site; at least three.
        section: Of secure aggregation.
        seed: Of identities, keys and masks.

    Returns:
        The first site's masked vector, as it travels, and the sum.
    """
    sites = tuple(f"site-{index:03d}" for index in range(len(words)))
    policy = make_policy(seed, sites, section)
    context = _make_context(sites, policy.roster, words[0], section)
    coordinator = CoordinatorSession(context, policy.roster)
    sessions = {
        site: SiteSession(
            site,
            make_identity(seed, site),
            policy=policy,
            store=MemoryStore(),
            generator=SecureGenerator.from_seed(seed, "views", "session", site),
        )
        for site in sites
    }
    for session in sessions.values():
        coordinator.receive_advertisement(
            session.advertise(
                context, config_digest=context.config_digest, model_digest=context.model_digest
            )
        )
    listed = coordinator.close_advertisements()
    for session in sessions.values():
        coordinator.receive_shares(session.share_keys(listed))
    deliveries = coordinator.close_shares()
    seen = words[0].copy()
    for index, (site, session) in enumerate(sessions.items()):
        vector = session.mask(words[index].copy(), deliveries[site])
        if not index:
            seen[:] = np.frombuffer(vector.words, seen.dtype)
        coordinator.receive_vector(vector)
    survivors = coordinator.close_vectors()
    for session in sessions.values():
        coordinator.receive_signature(session.sign_survivors(survivors))
    signatures = coordinator.close_signatures()
    for session in sessions.values():
        coordinator.receive_unmasking(session.unmask(signatures))
    return seen, coordinator.finish()


def _make_context(
    sites: tuple[str, ...], roster: SignedRoster, words: Words, section: SecureAggregationSection
) -> RoundContext:
    plan = plan_graph(
        len(sites), dropout_share=section.dropout_share, corrupt_share=section.corrupt_share
    )
    return RoundContext(
        federation=FEDERATION,
        run="audit",
        round=1,
        attempt=0,
        roster_digest=compute_roster_digest(roster),
        config_digest=hashlib.sha256(b"audit: config").digest(),
        model_digest=hashlib.sha256(b"audit: model").digest(),
        cohort=sites,
        threshold=compute_default_threshold(len(sites)),
        length=len(words),
        ring_bits=section.ring_bits,
        neighbours=plan.neighbours,
    )
