"""The audit method "inversion": what a coordinator rebuilds of records, from what it sees.

Four views of one step at one site are attacked alike (`fedtrain.audit.views`), and beside them a
guess that has seen nothing: the mean of other sites' records with the same label. A record counts
as rebuilt where the reconstruction is nearer to it than that guess by `MARGIN` dB.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedtrain.audit.findings import Figure, Finding, Verdict
from fedtrain.audit.inversion import Search, search_records
from fedtrain.audit.inversion_picture import Row, draw_inversions
from fedtrain.audit.methods import AuditContext
from fedtrain.audit.similarity import compute_psnr, compute_ssim
from fedtrain.audit.victims import Victims, open_victims
from fedtrain.audit.views import (
    REFERENCE_CLIP,
    REFERENCE_NOISE,
    SETTINGS,
    Setting,
    Views,
    list_protections,
    make_views,
)
from fedtrain.config import Config
from fedtrain.data.shards import Split
from fedtrain.plan import build_record_plan
from fedtrain.seeds import derive_seed, make_numpy_generator, make_torch_generator

Floats = NDArray[np.float64]

PICTURE: Final = "inversion.png"
BATCH: Final = 4
MARGIN: Final = 4.0  # dB: four tenths of the guess's squared error
TRIALS: Final = 8
# A record of more numbers than an image of 16 by 16 takes a search so long that fewer are tried.
LARGE_RECORD: Final = 256
LARGE_TRIALS: Final = 4
QUICK_TRIALS: Final = 2
# A sum is of a batch of every site of the cohort, and each of its records is looked for.
SUM_TRIALS: Final = 2
# Beyond so many parameters a step takes so long that a quick audit takes fewer.
_LARGE: Final = 100_000
# What a guess is made of: means of a label do not get better with more.
_KNOWN_SITES: Final = 10
_KNOWN_RECORDS: Final = 200
SUM_GUESS: Final = "guess of the sum's"
TITLES: Final[dict[Setting, str]] = {
    "raw": "Raw gradient",
    "dp": "Clipped and noised",
    "masked": "One masked vector",
    "sum": "Secure sum",
}


@dataclass(frozen=True)
class Match:
    """The reconstruction nearest to an original.

    Attributes:
        image: The reconstruction.
        psnr: In dB.
        ssim: -1 to 1; None for what is no image.
    """

    image: Floats
    psnr: float
    ssim: float | None


Outcome = Mapping[str, Sequence[Match]]


def audit_inversion(context: AuditContext) -> list[Finding]:
    """Search for the records of steps at several sites, from four views of each.

    Args:
        context: The run.

    Returns:
        One finding, with a picture of the first site's records where they are images. It is
        `violated` where a masked vector alone gives a record away.

    Raises:
        FedtrainError: Model or data cannot be read, or are of a kind that no gradient reaches.
    """
    torch.set_num_threads(1)
    victims = open_victims(context)
    outcomes: list[dict[str, list[Match]]] = []
    batches: list[Split] = []
    for trial in range(_count_trials(context, victims)):
        outcome, batch = _try(context, victims, trial)
        outcomes.append(outcome)
        batches.append(batch)
    is_image = len(victims.input_shape) >= 2
    if is_image:
        draw_inversions(
            _make_rows(context.config, outcomes[0], batches[0]),
            context.out / PICTURE,
            title=(
                f"What a coordinator rebuilds of {len(batches[0])} records from one step of a site"
                f"\norange frame: rebuilt ({MARGIN:g} dB nearer to the record than the guess)"
            ),
            low=victims.low,
            high=victims.high,
        )
    return [_describe(context, outcomes, records=sum(map(len, batches)), drawn=is_image)]


def match_records(originals: Floats, found: Floats, *, value_range: float) -> list[Match]:
    """Return for each original the reconstruction nearest to it.

    Args:
        originals: `(B, *shape)`.
        found: `(k, *shape)`.
        value_range: Of a feature.
    """
    matches = []
    for original in originals:
        scores = [compute_psnr(original, one, value_range=value_range) for one in found]
        best = found[int(np.argmax(scores))]
        ssim = None
        if original.ndim >= 2:
            ssim = compute_ssim(original, best, value_range=value_range)
        matches.append(Match(best, max(scores), ssim))
    return matches


def find_rebuilt(matches: Sequence[Match], guess: Sequence[Match]) -> list[bool]:
    """Say of each record whether it counts as rebuilt, beside a guess of it."""
    return [one.psnr >= blind.psnr + MARGIN for one, blind in zip(matches, guess, strict=True)]


def _count_trials(context: AuditContext, victims: Victims) -> int:
    """Return how many steps are attacked, of `BATCH` records each."""
    usual = TRIALS if math.prod(victims.input_shape) <= LARGE_RECORD else LARGE_TRIALS
    asked = context.inverted_records
    trials = usual if asked is None else math.ceil(asked / BATCH)
    return min(trials, QUICK_TRIALS) if context.quick else trials


def _try(
    context: AuditContext, victims: Victims, trial: int
) -> tuple[dict[str, list[Match]], Split]:
    """Attack one site's step; return the matches by view, the guess among them, and its batch.

    Of the secure sum, in the first trials alone, they are of the records of all sites in it.
    """
    generator = make_numpy_generator(context.seed, "inversion", trial)
    batches = victims.draw_batches(BATCH, first=trial % len(victims.splits), generator=generator)
    views = make_views(
        victims.model,
        batches,
        plan=build_record_plan(context.config),
        section=context.config.secure_aggregation,
        seed=derive_seed(context.seed, "inversion", trial),
    )
    width = victims.high - victims.low
    outcome: dict[str, list[Match]] = {}
    for setting in SETTINGS:
        if setting == "sum" and trial >= SUM_TRIALS:
            continue
        seen = batches if setting == "sum" else batches[:1]
        originals = np.concatenate([batch.features for batch in seen]).astype(np.float64)
        found = _search(context, victims, views, setting=setting, trial=trial)
        outcome[setting] = match_records(originals, found, value_range=width)
    guesses = [
        _match_guess(victims, batch, site=(trial + step) % len(victims.splits))
        for step, batch in enumerate(batches if "sum" in outcome else batches[:1])
    ]
    outcome["guess"] = guesses[0]
    if "sum" in outcome:
        outcome[SUM_GUESS] = [match for guess in guesses for match in guess]
    return outcome, batches[0]


def _match_guess(victims: Victims, batch: Split, *, site: int) -> list[Match]:
    """Match each record of a site with the guess of it."""
    width, originals = victims.high - victims.low, batch.features.astype(np.float64)
    return [
        match_records(original[None], own[None], value_range=width)[0]
        for original, own in zip(originals, _guess(victims, batch, site=site), strict=True)
    ]


def _search(
    context: AuditContext, victims: Victims, views: Views, *, setting: Setting, trial: int
) -> Floats:
    labels = views.batches[0].labels
    if setting == "sum":  # the attacker may know all labels, and any record may show
        labels = np.concatenate([batch.labels for batch in views.batches])
    gradient = views.gradients[setting]
    small = not context.quick or len(gradient) <= _LARGE
    search = Search(
        victims.low,
        victims.high,
        steps=1200 if not context.quick else 500 if small else 200,
        starts=1 if context.quick else 2,
        smoothness=1e-3 if len(victims.input_shape) >= 2 else 0.0,
    )
    return search_records(
        victims.model,
        gradient,
        torch.from_numpy(labels),
        shape=victims.input_shape,
        search=search,
        generator=make_torch_generator(context.seed, "inversion", setting, trial),
    )


def _guess(victims: Victims, batch: Split, *, site: int) -> Floats:
    """Return the mean of other sites' records of each record's label, `(B, *shape)`."""
    others = [split for index, split in enumerate(victims.splits) if index != site]
    others = others[:_KNOWN_SITES] or [victims.splits[site]]
    features = np.concatenate([s.features[:_KNOWN_RECORDS] for s in others]).astype(np.float64)
    labels = np.concatenate([s.labels[:_KNOWN_RECORDS] for s in others])
    means = []
    for label in batch.labels:
        own = features[labels == label]
        means.append((own if len(own) else features).mean(axis=0))
    return np.stack(means)


def _make_rows(config: Config, outcome: Outcome, batch: Split) -> list[Row]:
    originals = list(batch.features.astype(np.float64))
    rows = [Row("The records", "they stay at the site", originals, ())]
    notes: dict[Setting, str] = {
        "raw": "no protection",
        "dp": _describe_noise(config),
        "masked": "what travels under\nsecure aggregation",
        "sum": "the cohort's mean gradient,\nwithout noise",
    }
    own = list_protections(config) or ["raw"]
    for setting in SETTINGS:
        mark = "\nin this run: yes" if setting in own else ""
        own_matches = outcome[setting][: len(originals)]  # those of the sum begin with this site's
        rebuilt = find_rebuilt(own_matches, outcome["guess"])
        rows.append(_make_row(TITLES[setting], notes[setting] + mark, own_matches, rebuilt))
    none = [False] * len(originals)
    note = "mean of the label,\nno gradient seen"
    rows.append(_make_row("A guess", note, outcome["guess"], none))
    return rows


def _make_row(title: str, note: str, matches: Sequence[Match], rebuilt: Sequence[bool]) -> Row:
    captions = [f"{match.psnr:.0f} dB, SSIM {match.ssim:.2f}" for match in matches]
    return Row(title, note, [match.image for match in matches], captions, rebuilt)


def _describe_noise(config: Config) -> str:
    plan = build_record_plan(config)
    if plan is None:
        return f"DP-SGD, an example:\nnoise {REFERENCE_NOISE:g}, clip {REFERENCE_CLIP:g}"
    return f"DP-SGD: noise {plan.noise_multiplier:.2f}, clip {plan.max_grad_norm:g}"


def _describe(
    context: AuditContext,
    outcomes: Sequence[Mapping[str, Sequence[Match]]],
    *,
    records: int,
    drawn: bool,
) -> Finding:
    pooled = {
        name: [match for outcome in outcomes for match in outcome.get(name, ())]
        for name in outcomes[0]
    }
    guesses = {"sum": pooled.pop(SUM_GUESS)}
    rebuilt = {
        name: sum(find_rebuilt(found, guesses.get(name, pooled["guess"])))
        for name, found in pooled.items()
    }
    own = list_protections(context.config)
    figures: dict[str, Figure] = {"batch_size": BATCH, "trials": len(outcomes)}
    figures["sum_records"] = len(pooled["sum"])
    figures["protections"] = ", ".join(own) or "none"
    figures["dp_settings"] = "of the run" if context.config.privacy.covers_records else "reference"
    for name, found in pooled.items():
        figures[f"{name}_rebuilt"] = rebuilt[name]
        figures[f"{name}_psnr_mean"] = float(np.mean([match.psnr for match in found]))
        ssims = [match.ssim for match in found if match.ssim is not None]
        figures[f"{name}_ssim_mean"] = float(np.mean(ssims)) if ssims else None
    return Finding(
        method="inversion",
        title="Gradient inversion (search for the records)",
        threat_model=(
            "A coordinator that has the model and the records' labels, and sees one step of one"
            f" site on {BATCH} records; masked where secure aggregation is on."
        ),
        unit="record",
        sample_size=records,
        confidence=None,
        seed=context.seed,
        figures=figures,
        verdict=_judge(rebuilt, own),
        sentence=_say(rebuilt, own, records=records, summed=len(pooled["sum"])),
        pictures=(PICTURE,) if drawn else (),
    )


def _judge(rebuilt: Mapping[str, int], own: Sequence[Setting]) -> Verdict:
    """Only the masked vector has a claim that one record contradicts: that it says nothing."""
    if rebuilt["masked"]:
        return "violated"
    return "holds" if own and not any(rebuilt[setting] for setting in own) else "informative"


def _say(rebuilt: Mapping[str, int], own: Sequence[Setting], *, records: int, summed: int) -> str:
    bare = f"From bare gradients of one step this attack rebuilds {rebuilt['raw']} of {records}"
    if not own:
        return f"{bare} records, and this run sends them bare."
    names = {
        "dp": "clipped and noised gradients",
        "sum": f"the secure sum without noise (of {summed} records in it)",
    }
    parts = " and ".join(f"{rebuilt[one]} from {names[one]}" for one in own)
    return (
        f"{bare} records; with what protects this run, each taken alone, it rebuilds {parts}. A"
        " better attack may rebuild more."
    )
