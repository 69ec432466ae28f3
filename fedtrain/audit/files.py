"""Checks of a run's own files: config, state, metrics, model."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from fedtrain.audit.evidence import LINE_FILES, Evidence
from fedtrain.config import compute_digest
from fedtrain.errors import AuditError
from fedtrain.models.saved import load_saved_model
from fedtrain.params import ModelState, Vector, compute_vector_digest
from fedtrain.secagg.policy import compute_default_threshold
from fedtrain.training.schedules import has_stalled
from fedtrain.user_function import is_function_reference

PARAMETERS: Final = "parameters"


def check_config(evidence: Evidence) -> int:
    """Check the config's digest: recomputed, in the last line of `config.toml`, in `state.json`."""
    digest, found = compute_digest(evidence.config), evidence.state.digest
    if found != digest:
        raise AuditError(f"state.json: digest {found[:12]} is not the config's, {digest[:12]}")
    return 3


def _ended_early(evidence: Evidence) -> bool:
    """Say whether the committed validation losses are why the run ended before its last round."""
    patience = evidence.config.federation.patience
    losses = [line["val_loss"] for line in evidence.metrics if "val_loss" in line]
    return patience is not None and has_stalled(losses, patience)


def check_lengths(evidence: Evidence) -> int:
    """Check that the line files are what was committed, and as many lines as rounds."""
    state, rounds = evidence.state, evidence.config.rounds
    if state.rounds != rounds or not 0 <= state.round <= rounds:
        raise AuditError(f"state.json: round {state.round} of {state.rounds}, config: {rounds}")
    if state.status == "finished" and state.round != rounds and not _ended_early(evidence):
        raise AuditError(f"state.json: finished after round {state.round} of {rounds}")
    if state.sites != evidence.config.partition.sites:
        raise AuditError(
            f"state.json: sites = {state.sites}, config: {evidence.config.partition.sites}"
        )
    for name in LINE_FILES:
        evidence.read_lines(name)
    if len(evidence.metrics) != state.round:
        raise AuditError(
            f"metrics.jsonl: {len(evidence.metrics)} lines, state.json committed round"
            f" {state.round}"
        )
    return len(LINE_FILES)


def check_metrics(evidence: Evidence) -> int:
    """Check cohort, survivors and threshold of every round against the config."""
    for line in evidence.metrics:
        where = f"metrics.jsonl: round {line['round']}"
        cohort, survivors = line["cohort"], line["survivors"]
        _check_cohort(evidence, line, where)
        if not 0 <= survivors <= cohort:
            raise AuditError(f"{where}: {survivors} survivors of a cohort of {cohort}")
        threshold = compute_threshold(evidence, cohort)
        if line.get("threshold") != threshold:
            raise AuditError(f"{where}: threshold {line.get('threshold')}, due is {threshold}")
        if threshold is None:
            continue
        if ("void" in line) != (survivors < threshold):
            state = "void" if "void" in line else "not void"
            raise AuditError(
                f"{where}: {survivors} survivors with threshold {threshold}, but {state}"
            )
        if "void" in line and survivors:
            raise AuditError(f"{where}: void, but {survivors} survivors")
    return len(evidence.metrics)


def compute_threshold(evidence: Evidence, cohort: int) -> int | None:
    """Return the threshold of a cohort; None where no secure sum was asked for."""
    section = evidence.config.secure_aggregation
    if section.mode == "off" or cohort == 0:
        return None
    return section.threshold or compute_default_threshold(cohort)


def check_model(evidence: Evidence) -> int:
    """Check the saved models: their digests, and that they are the checkpoint's vectors.

    A model that code of the user's own builds is not built here: of it the digest is checked.
    """
    state = evidence.state
    vectors = read_vectors(evidence)
    chosen = "best" if "best" in vectors else "last"
    folders = {".": chosen}
    if chosen == "best" and state.best_round != state.round:
        folders["last"] = "last"
    for folder, vector in folders.items():
        _check_saved(evidence, folder, vectors[vector])
    return len(folders)


def read_vectors(evidence: Evidence) -> dict[str, Vector]:
    """Return the vectors of the last and, where one was chosen, of the best round, `(d,)`."""
    state = evidence.state
    names = {"last": state.checkpoint, "best": state.best}
    return {key: _read_vector(evidence, name) for key, name in names.items() if name is not None}


def _check_cohort(evidence: Evidence, line: dict[str, Any], where: str) -> None:
    """Check a cohort's size; a site that left in the round was drawn, or refused at its start."""
    federation, cohort = evidence.config.federation, line["cohort"]
    left = list(evidence.state.left.values())
    most = evidence.state.sites - sum(gone < line["round"] for gone in left)
    least = most - left.count(line["round"])
    asks_all = evidence.config.statistics is not None
    wanted = most if asks_all else federation.sites_per_round or most
    low, high = min(wanted, least), min(wanted, most)
    if federation.site_sample_rate is not None and not asks_all:
        low, high = 0, most
    if not low <= cohort <= high:
        raise AuditError(f"{where}: a cohort of {cohort}, the config draws {low} to {high}")


def _check_saved(evidence: Evidence, folder: str, vector: Vector) -> None:
    prefix = "" if folder == "." else f"{folder}/"
    description = evidence.read_json(f"{prefix}model.json")
    digest = hashlib.sha256(evidence.read_bytes(f"{prefix}model.safetensors")).hexdigest()
    if description.get("digest") != digest:
        raise AuditError(
            f"{prefix}model.safetensors: digest {digest[:12]}, model.json says"
            f" {str(description.get('digest'))[:12]}"
        )
    state = evidence.state
    notes = {"last_round": state.round, "best_round": state.best_round}
    if description.get("notes") != notes:
        raise AuditError(f"{prefix}model.json: notes are {description.get('notes')}, due {notes}")
    if is_function_reference(evidence.config.model.name):
        return
    model = load_saved_model(evidence.path / folder).model
    if compute_vector_digest(ModelState(model).read()) != compute_vector_digest(vector):
        raise AuditError(f"{prefix}model.safetensors: not the model of the checkpoint")


def _read_vector(evidence: Evidence, name: str) -> Vector:
    try:
        arrays: Mapping[str, NDArray[Any]] = load(evidence.read_bytes(name))
        vector = arrays[PARAMETERS]
    except (SafetensorError, KeyError, ValueError) as error:
        raise AuditError(f"{name}: damaged ({error})") from error
    if vector.ndim != 1 or vector.dtype != np.float32:
        raise AuditError(f"{name}: parameters of {vector.dtype}, shape {vector.shape}")
    return vector
