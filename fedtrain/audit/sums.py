"""Checks of the secure sums: roster, signatures, contexts, and the round lines about them."""

import hashlib
from typing import Any, Final

from fedtrain.aggregation import (
    bind_clip,
    bind_control,
    build_evaluation_encoding,
    name_run,
)
from fedtrain.audit.evidence import Evidence, SecureSum, read_roster
from fedtrain.audit.files import compute_threshold, read_vectors
from fedtrain.canonical import to_canonical
from fedtrain.config import DEFAULT_PROXIMAL_MU, compute_digest
from fedtrain.errors import AuditError
from fedtrain.plan import sends_metrics
from fedtrain.secagg.codec import decode
from fedtrain.secagg.graph import plan_graph
from fedtrain.secagg.messages import AdvertisementList, SignatureList
from fedtrain.secagg.roster import compute_roster_digest, verify_roster
from fedtrain.secagg.simulated import make_root, make_signed_roster
from fedtrain.secagg.transcript import verify_transcript
from fedtrain.training_vector import TrainingVector

TRAINING: Final = "train"
EVALUATION: Final = "evaluate"


def check_roster(evidence: Evidence) -> int:
    """Check that the root signed the roster, and that the run's own is the one checked against.

    The keys of a simulation are recomputed from the seed: they show damage, not forgery.
    """
    pinned = evidence.roster
    verify_roster(pinned.signed, pinned.root_public_key)
    own = read_roster(evidence.path / "roster.json")
    if (own.signed, own.root_public_key) != (pinned.signed, pinned.root_public_key):
        raise AuditError(
            f"roster.json: not the roster and root of {evidence.roster_path}; the run was made by"
            " another federation"
        )
    seed = evidence.config.run.seed
    if own.simulated and (own.signed, own.root_public_key) != (
        make_signed_roster(seed, own.sites),
        make_root(seed).public_key,
    ):
        raise AuditError("roster.json: says simulated, but its keys are not those of the seed")
    if len(own.sites) != evidence.state.sites:
        raise AuditError(f"roster.json: {len(own.sites)} sites, state.json {evidence.state.sites}")
    return len(own.sites)


def check_signatures(evidence: Evidence) -> int:
    """Check every signature and digest of the transcript against the roster."""
    pinned, count = evidence.roster, 0
    for one in evidence.sums:
        if "advertisements" in one.record:
            try:
                verify_transcript(one.record, pinned.signed, pinned.root_public_key)
            except AuditError as error:
                raise AuditError(f"{one.name}: {error}") from error
        else:
            _check_unsigned(evidence, one)
        if len(one.record.get("sum", "0" * 64)) != 64:
            raise AuditError(f"{one.name}: the sum's digest is no SHA-256")
        count += count_signatures(one)
    return count


def count_signatures(one: SecureSum) -> int:
    """Return how many signatures a verified sum has: of keys, of vectors, of the survivor set."""
    record, count = one.record, len(one.record["vectors"])
    if "advertisements" in record:
        listed = decode(bytes.fromhex(record["advertisements"]), AdvertisementList)
        count += len(listed.advertisements)
    if "signatures" in record:
        count += len(decode(bytes.fromhex(record["signatures"]), SignatureList).signatures)
    return count


def check_contexts(evidence: Evidence) -> int:
    """Check what sites were shown: run, round, purpose, config, threshold, cohort, ring."""
    due = _list_due(evidence)
    found = [(one.context.round, one.purpose) for one in evidence.sums]
    for wanted, actual in zip(due, found, strict=False):
        if wanted != actual:
            raise AuditError(
                f"transcript.jsonl: round {actual[0]}, {actual[1]}, where round {wanted[0]},"
                f" {wanted[1]} is due"
            )
    if len(due) != len(found):
        raise AuditError(f"transcript.jsonl: {len(found)} secure sums, due are {len(due)}")
    for one in evidence.sums:
        _check_context(evidence, one)
    return len(found)


def check_models(evidence: Evidence) -> int:
    """Check that each sum was over the model that the sum before it left behind.

    A void round leaves its model as it was; the last evaluation was of the last checkpoint. An
    adaptive clip, a plateau's learning rate or SCAFFOLD's control variate is bound to the model
    that it was sent with.
    """
    clips = {
        line["round"]: line.get("update_norm", line.get("rate_factor")) for line in evidence.metrics
    }
    controls = {line["round"]: line.get("control") for line in evidence.metrics}
    current: bytes | None = None
    best, state = None, evidence.state
    for one in evidence.sums:
        digest = one.context.model_digest
        clip = clips.get(one.context.round) if one.purpose == TRAINING else None
        hexadecimal = controls.get(one.context.round) if one.purpose == TRAINING else None
        control = None if hexadecimal is None else bytes.fromhex(hexadecimal)
        if current is not None and digest != bind_clip(bind_control(current, control), clip):
            raise AuditError(f"{one.name}: over another model than the sum before it left")
        if one.purpose == EVALUATION and one.context.round == state.best_round:
            best = digest
        if one.purpose == TRAINING and not _is_void(evidence, one):
            current = None
        elif clip is None and control is None:
            current = digest
    vectors = read_vectors(evidence)
    for name, signed in (("last", current), ("best", best)):
        if signed is None or name not in vectors:
            continue
        if hashlib.sha256(vectors[name].astype("<f4").tobytes()).digest() != signed:
            raise AuditError(f"checkpoint: its {name} model is not the one that sites evaluated")
    return len(evidence.sums)


def check_metrics_agree(evidence: Evidence) -> int:
    """Check cohort, survivors, threshold and voidness in `metrics.jsonl` against the transcript."""
    trained = {one.context.round: one for one in evidence.sums if one.purpose == TRAINING}
    evaluated = {one.context.round: one for one in evidence.sums if one.purpose == EVALUATION}
    central = bool(evidence.config.data.central_test)
    for line in evidence.metrics:
        where = f"metrics.jsonl: round {line['round']}"
        one = trained.get(line["round"])
        if one is not None:
            _check_line(line, one, where)
        found = any(key.startswith(("test_", "val_")) for key in line)
        summed = line["round"] in evaluated and "sum" in evaluated[line["round"]].record
        if found and not summed and not central:
            raise AuditError(f"{where}: has metrics, but there is no sum that they came from")
    return len(evidence.metrics)


def is_evaluated(evidence: Evidence, round_: int) -> bool:
    """Say whether sites are asked to evaluate in a round."""
    data, every = evidence.config.data, evidence.config.federation.evaluate_every
    due = round_ == evidence.config.federation.rounds or (every > 0 and round_ % every == 0)
    due = due and sends_metrics(evidence.config)
    return due and bool(data.validation_fraction or data.test_fraction)


def _list_due(evidence: Evidence) -> list[tuple[int, str]]:
    due = []
    for line in evidence.metrics:
        if line["cohort"] >= evidence.config.secure_aggregation.min_cohort:  # else nobody is asked
            due.append((line["round"], TRAINING))
        if is_evaluated(evidence, line["round"]):
            due.append((line["round"], EVALUATION))
    return due


def _check_unsigned(evidence: Evidence, one: SecureSum) -> None:
    """Check a round that ended before anybody's keys were listed: nothing of it is signed."""
    record = one.record
    left = {key: value for key, value in record.items() if key not in ("context", "vectors")}
    if left != {"void": "too-few-sites"} or record.get("vectors") != {}:
        raise AuditError(f"{one.name}: ends early without saying why, or goes on unsigned")
    if one.context.roster_digest != compute_roster_digest(evidence.roster.signed):
        raise AuditError(f"{one.name}: was run under another roster")


def _check_context(evidence: Evidence, one: SecureSum) -> None:
    context, section = one.context, evidence.config.secure_aggregation
    sites = evidence.roster.sites
    cohort = len(context.cohort)
    plan = plan_graph(
        cohort, dropout_share=section.dropout_share, corrupt_share=section.corrupt_share
    )
    pairs: dict[str, tuple[Any, Any]] = {
        "run": (context.run, _compute_run(evidence, one)),
        "attempt": (_is_attempt(evidence, context.attempt), True),
        "federation": (context.federation, evidence.roster.signed.roster.federation),
        "config digest": (context.config_digest.hex(), compute_digest(evidence.config)),
        "threshold": (context.threshold, compute_threshold(evidence, cohort)),
        "ring_bits": (context.ring_bits, section.ring_bits),
        "neighbours": (context.neighbours, plan.neighbours),
        "length": (context.length, _compute_length(evidence, one)),
    }
    if one.purpose == EVALUATION:
        left = evidence.state.left
        present = tuple(s for s in sites if left.get(s, context.round + 1) > context.round)
        pairs["cohort"] = (context.cohort, present)
    for name, (found, due) in pairs.items():
        if found != due:
            raise AuditError(f"{one.name}: {name} is {found}, due is {due}")
    if list(context.cohort) != sorted(set(context.cohort)) or not set(context.cohort) <= set(sites):
        raise AuditError(f"{one.name}: its cohort is not a set of sites of the roster")


def _is_attempt(evidence: Evidence, attempt: int) -> bool:
    """Say whether an attempt's number may be: always 0 in a simulation, else a sitting's."""
    return attempt == 0 if evidence.roster.simulated else 0 <= attempt <= evidence.state.sittings


def _compute_run(evidence: Evidence, one: SecureSum) -> str:
    """Return what the context must call the run: config, preparation and proximal term.

    The preparation is in `model.json`; before the run has ended only the config's part is known.
    """
    if evidence.state.status != "finished":
        known, run = f"{evidence.state.digest[:32]}-", one.context.run
        return run if run.startswith(known) and run.endswith(f"/{one.purpose}") else known
    federation, proximal_mu = evidence.config.federation, 0.0
    if federation.strategy == "FedProx" and one.purpose == TRAINING:
        proximal_mu = federation.strategy_options.get("proximal_mu", DEFAULT_PROXIMAL_MU)
    return name_run(
        evidence.state.digest,
        preparation_text=to_canonical(evidence.read_json("model.json").get("preparation")),
        proximal_mu=proximal_mu,
        purpose=one.purpose,
        run_id="" if evidence.roster.simulated else evidence.state.run_id,
    )


def _compute_length(evidence: Evidence, one: SecureSum) -> int:
    """Return how many elements the vectors of a sum have; its own number where it is unknown."""
    cohort = len(one.context.cohort)
    if one.purpose == TRAINING:
        size = len(read_vectors(evidence)["last"])
        return TrainingVector(evidence.config, size=size, cohort=cohort).encoding.length
    if evidence.state.status != "finished":
        return one.context.length
    names = evidence.read_json("model.json").get("label_names")
    if not isinstance(names, list):
        raise AuditError("model.json: holds no list of label_names")
    return build_evaluation_encoding(evidence.config, classes=len(names), cohort=cohort).length


def _is_void(evidence: Evidence, one: SecureSum) -> bool:
    survivors = len(one.record.get("survivors", ()))
    return "void" in one.record or survivors < evidence.config.federation.min_survivors


def _check_line(line: dict[str, Any], one: SecureSum, where: str) -> None:
    void = "void" in one.record
    pairs = {
        "cohort": (line["cohort"], len(one.context.cohort)),
        "threshold": (line.get("threshold"), one.context.threshold),
        "survivors": (line["survivors"], 0 if void else len(one.record["survivors"])),
        "void": ("void" in line, void),
    }
    for name, (found, due) in pairs.items():
        if found != due:
            raise AuditError(f"{where}: {name} is {found}, transcript.jsonl says {due}")
