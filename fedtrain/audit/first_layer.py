"""The audit method "first-layer": records and attributes read off a first linear layer.

No search is needed: a quotient of two gradients is a record (`inversion.read_first_layer`). It is
tried on batches of several sizes, after several local steps, and on the four views of a step.

Shapes: B records of a batch, f features of a record, k candidates.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtrain.audit.findings import Figure, Finding, Verdict
from fedtrain.audit.inversion import compute_gradient, find_first_layer, read_first_layer
from fedtrain.audit.leak_picture import Bar, draw_bars
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.similarity import MAX_PSNR
from fedtrain.audit.victims import Victims, open_victims
from fedtrain.audit.views import SETTINGS, list_protections, make_views
from fedtrain.config import ModelSection
from fedtrain.data.shards import Split
from fedtrain.errors import ConfigError
from fedtrain.models.registry import build_model
from fedtrain.plan import build_record_plan
from fedtrain.seeds import derive_seed, make_numpy_generator, make_torch_generator

Floats = NDArray[np.float64]

METHOD: Final = "first-layer"
PICTURE: Final = "first-layer.png"
TITLE: Final = "Reading records off the first layer"
THREAT_MODEL: Final = (
    "A coordinator that has the model and sees one step of one site, or its local round of several;"
    " masked where secure aggregation is on."
)
EXACT: Final = 30.0  # dB: the record itself but for rounding
NEAR: Final = 0.01  # of a feature's range: an attribute that is read right
SIZES: Final = (1, 8, 32)
LOCAL_STEPS: Final = 5
WIDE: Final = 1024  # units of a wide first layer, beside the run's own
TRIALS: Final = 40
QUICK_TRIALS: Final = 10


@dataclass(frozen=True)
class Read:
    """What was read of one batch.

    Attributes:
        exact: Whether each record was, `(B,)`.
        attributes: Share of each record's features that the nearest candidate has right, `(B,)`.
    """

    exact: NDArray[np.bool_]
    attributes: Floats


def audit_first_layer(context: AuditContext) -> list[Finding]:
    """Read records off the first layer of steps at several sites.

    Args:
        context: The run.

    Returns:
        One finding; without a picture and `informative` where the model has no such layer. It is
        `violated` where a masked vector alone gives a record away.

    Raises:
        FedtrainError: Model or data cannot be read.
    """
    torch.set_num_threads(1)
    victims = open_victims(context)
    try:
        find_first_layer(victims.model, torch.zeros(_count(victims.model)))
    except ConfigError as error:
        return [_describe_none(context, str(error))]
    trials = QUICK_TRIALS if context.quick else TRIALS
    reads: dict[str, list[Read]] = {}
    wide = build_wide_model(victims, context.seed)
    for trial in range(trials):
        for name, read in _try(context, victims, wide, trial=trial).items():
            reads.setdefault(name, []).append(read)
    shares = {name: float(np.mean(_pool(found))) for name, found in reads.items()}
    bars = _make_bars(shares, _count_units(victims.model))
    draw_bars(bars, context.out / PICTURE, title="Records read off a first linear layer")
    return [_describe(context, reads, shares)]


def read_records(model: nn.Module, gradient: Tensor, originals: Floats, *, width: float) -> Read:
    """Read a first layer, and say which originals were found.

    Args:
        model: Begins with a linear layer.
        gradient: As seen, `(d,)`.
        originals: `(B, f)`.
        width: Largest value of a feature less the smallest.
    """
    candidates = read_first_layer(model, gradient)
    if not len(candidates):
        return Read(np.zeros(len(originals), np.bool_), np.zeros(len(originals)))
    apart = np.abs(candidates[None] - originals[:, None])  # (B, k, f)
    errors = np.maximum((apart**2).mean(axis=2).min(axis=1), 10 ** (-MAX_PSNR / 10) * width**2)
    right = (apart <= NEAR * width).mean(axis=2).max(axis=1)
    return Read(10 * np.log10(width**2 / errors) >= EXACT, right)


def take_local_steps(model: nn.Module, batch: Split, *, steps: int, learning_rate: float) -> Tensor:
    """Return the update that several steps of SGD on the same records make, `(d,)`.

    Args:
        model: At the global parameters; left as it is.
        batch: The records.
        steps: Each on all of them.
        learning_rate: Of SGD.
    """
    local = copy.deepcopy(model)
    features, labels = torch.from_numpy(batch.features), torch.from_numpy(batch.labels)
    parameters = [p for p in local.parameters() if p.requires_grad]
    total = torch.zeros(_count(model))
    for _ in range(steps):
        update = compute_gradient(local, features, labels).mul(-learning_rate)
        total.add_(update)
        pieces = torch.split(update, [p.numel() for p in parameters])
        with torch.no_grad():
            for parameter, piece in zip(parameters, pieces, strict=True):
                parameter.add_(piece.view_as(parameter))
    return total


def build_wide_model(victims: Victims, seed: int) -> nn.Module:
    """Build a model on the same records whose first layer is wide and of ReLU units.

    Fewer records share one of its units than one of a small layer: what the sizes of layers do.
    """
    return build_model(
        ModelSection(name="mlp", hidden=(WIDE,), activation="relu"),
        input_shape=victims.input_shape,
        classes=victims.classes,
        generator=make_torch_generator(seed, "wide model"),
    )


def _try(
    context: AuditContext, victims: Victims, wide: nn.Module, *, trial: int
) -> dict[str, Read]:
    first = trial % len(victims.splits)
    generator = make_numpy_generator(context.seed, METHOD, trial)
    width = victims.high - victims.low
    rate = context.config.training.learning_rate
    found: dict[str, Read] = {}
    for name, model in (("raw", victims.model), ("wide", wide)):
        for size in SIZES:
            batch = victims.draw_batches(size, first=first, generator=generator)[0]
            features, labels = torch.from_numpy(batch.features), torch.from_numpy(batch.labels)
            gradient = compute_gradient(model, features, labels)
            found[f"{name}_{size}"] = read_records(model, gradient, _flatten(batch), width=width)
        update = take_local_steps(model, batch, steps=LOCAL_STEPS, learning_rate=rate)
        found[f"{name}_local_steps"] = read_records(model, update, _flatten(batch), width=width)
    batches = victims.draw_batches(1, first=first, generator=generator)
    plan = build_record_plan(context.config)
    views = make_views(
        victims.model,
        batches,
        plan=plan if plan is None else replace(plan, unit="record"),
        section=context.config.secure_aggregation,
        seed=derive_seed(context.seed, METHOD, trial),
    )
    for setting in SETTINGS[1:]:
        found[setting] = read_records(
            victims.model, views.gradients[setting], _flatten(batches[0]), width=width
        )
    found["guess"] = _guess(victims, batches[0], site=first)
    return found


def _guess(victims: Victims, batch: Split, *, site: int) -> Read:
    """Read the attributes of a typical record of another site, without seeing anything."""
    other = victims.splits[(site + 1) % len(victims.splits)]
    typical = np.median(_flatten(other), axis=0)
    right = np.abs(_flatten(batch) - typical) <= NEAR * (victims.high - victims.low)
    return Read(np.zeros(len(batch), np.bool_), right.mean(axis=1))


def _flatten(batch: Split) -> Floats:
    return batch.features.reshape(len(batch), -1).astype(np.float64)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _pool(reads: Sequence[Read]) -> Floats:
    return np.concatenate([read.exact for read in reads]).astype(np.float64)


def _count_units(model: nn.Module) -> int:
    weights, _ = find_first_layer(model, torch.zeros(_count(model)))
    return len(weights)


def _make_bars(shares: Mapping[str, float], units: int) -> list[Bar]:
    names: dict[str, str] = {}
    for kind, what in (("raw", f"this model's {units:,} units"), ("wide", f"{WIDE:,} ReLU units")):
        names |= {f"{kind}_{size}": f"{what}, batch of {size}" for size in SIZES}
        names[f"{kind}_local_steps"] = f"{what}, batch of {SIZES[-1]}, {LOCAL_STEPS} local steps"
    names |= {
        "dp": "clipped and noised, batch of 1",
        "masked": "one masked vector, batch of 1",
        "sum": "secure sum, batch of 1 at each site",
    }
    return [
        Bar(text, shares[name], open=name.startswith(("raw", "wide")))
        for name, text in names.items()
    ]


def _describe(
    context: AuditContext, reads: Mapping[str, Sequence[Read]], shares: Mapping[str, float]
) -> Finding:
    figures: dict[str, Figure] = {"trials": len(reads["guess"])}
    figures |= {f"{name}_read": share for name, share in shares.items() if name != "guess"}
    for name in ("raw_1", "dp", "masked", "sum", "guess"):
        values = np.concatenate([read.attributes for read in reads[name]])
        figures[f"{name}_attributes"] = float(values.mean())
    verdict: Verdict = "violated" if shares["masked"] else "informative"
    own = list_protections(context.config)
    if own and verdict != "violated":
        verdict = "informative" if any(shares[name] for name in own) else "holds"
    protected = " and ".join(f"{shares[n]:.0%} from {_WORDS[n]}" for n in own)
    tail = f"; with what protects this run, each taken alone, {protected}" if own else ""
    sentence = (
        f"From the bare gradient of one record its values can be read: {shares['raw_1']:.0%} of"
        f" records to the digit, {shares[f'raw_{SIZES[-1]}']:.0%} where {SIZES[-1]} records share"
        f" a step ({shares[f'wide_{SIZES[-1]}']:.0%} in a layer of {WIDE:,} units){tail}."
    )
    return Finding(
        method=METHOD,
        title=TITLE,
        threat_model=THREAT_MODEL,
        unit="record",
        sample_size=sum(len(read.exact) for found in reads.values() for read in found),
        confidence=None,
        seed=context.seed,
        figures=figures,
        verdict=verdict,
        sentence=sentence,
        pictures=(PICTURE,),
    )


_WORDS: Final = {"dp": "clipped and noised gradients", "sum": "the secure sum without noise"}


def _describe_none(context: AuditContext, reason: str) -> Finding:
    return Finding(
        method=METHOD,
        title=TITLE,
        threat_model=THREAT_MODEL,
        unit="record",
        sample_size=0,
        confidence=None,
        seed=context.seed,
        figures={},
        verdict="informative",
        sentence=f"This attack does not apply: {reason}. The search for records still does.",
    )
