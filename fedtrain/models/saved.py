"""A model on disk: `model.safetensors` and `model.json`, which need nothing else to be used.

The JSON file holds the architecture, the fitted preparation, the label names and the digest of
the other file. It is written last, so that a digest that holds means that both are whole.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import nn

from fedtrain.durable import replace_file
from fedtrain.errors import AuditError, RunDirectoryError
from fedtrain.models.registry import build_described_model
from fedtrain.user_function import is_function_reference

FORMAT: Final = 1
TENSORS_NAME: Final = "model.safetensors"
DESCRIPTION_NAME: Final = "model.json"
_STATE_NAME: Final = "state.json"  # of a run


@dataclass(frozen=True)
class SavedModel:
    """A model read from disk, with what is needed to use it.

    Attributes:
        model: The module with its parameters, in evaluation mode.
        preparation: The fitted preparation of records, as JSON types.
        label_names: Name of each class, in the order of the logits.
        architecture: What `describe_architecture` returned.
        notes: What the writer added, such as the round that the model is of.
    """

    model: nn.Module
    preparation: Mapping[str, Any]
    label_names: tuple[str, ...]
    architecture: Mapping[str, Any]
    notes: Mapping[str, Any]


def save_model(
    directory: Path,
    state: Mapping[str, torch.Tensor],
    *,
    architecture: Mapping[str, Any],
    preparation: Mapping[str, Any],
    label_names: Sequence[str],
    notes: Mapping[str, Any] | None = None,
) -> str:
    """Write a model; replaces one that is there.

    Args:
        directory: An existing folder.
        state: The model's `state_dict()`.
        architecture: What `describe_architecture` returned.
        preparation: The fitted preparation's `to_json()`.
        label_names: Name of each class, in the order of the logits.
        notes: JSON values to keep beside, e.g. `{"best_round": 7, "last_round": 10}`.

    Returns:
        The SHA-256 (hex) of `model.safetensors`. Equal states give equal bytes.

    Raises:
        RunDirectoryError: The files cannot be written.
    """
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    content = safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    description = {
        "format": FORMAT,
        "architecture": dict(architecture),
        "preparation": dict(preparation),
        "label_names": list(label_names),
        "digest": digest,
        "notes": dict(notes or {}),
    }
    text = json.dumps(description, indent=2, sort_keys=True, allow_nan=False) + "\n"
    _replace_file(directory / TENSORS_NAME, content)
    _replace_file(directory / DESCRIPTION_NAME, text.encode())
    return digest


def load_saved_model(directory: Path, *, allowed_functions: Collection[str] = ()) -> SavedModel:
    """Read a model that `save_model` wrote.

    Args:
        directory: The folder with both files.
        allowed_functions: References `module:function` that may be imported and run, where the
            architecture is the user's own. The file names code; only the caller can vouch for it.

    Raises:
        RunDirectoryError: A file is missing or unreadable.
        AuditError: A file is damaged, the two do not belong together, or the code that builds the
            model is not allowed.
    """
    content = _read_file(directory / TENSORS_NAME)
    description = _read_description(directory / DESCRIPTION_NAME)
    digest = hashlib.sha256(content).hexdigest()
    if digest != description["digest"]:
        raise AuditError(
            f"{TENSORS_NAME} has digest {digest[:12]}, {DESCRIPTION_NAME} says"
            f" {str(description['digest'])[:12]}; restore both from one save"
        )
    architecture = description["architecture"]
    name = str(architecture.get("name"))
    if is_function_reference(name) and name not in allowed_functions:
        raise AuditError(
            f"{DESCRIPTION_NAME} names code to run, '{name}'; allow it with"
            f" allowed_functions=['{name}'] if you trust it"
        )
    model = build_described_model(architecture, torch.Generator().manual_seed(0))
    _load_tensors(model, content)
    return SavedModel(
        model=model.eval(),
        preparation=description["preparation"],
        label_names=tuple(description["label_names"]),
        architecture=architecture,
        notes=description["notes"],
    )


def _load_tensors(model: nn.Module, content: bytes) -> None:
    try:
        model.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise AuditError(
            f"{TENSORS_NAME} does not fit the architecture in {DESCRIPTION_NAME} ({reason});"
            " restore both from one save"
        ) from error


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description: Any = json.loads(_read_file(path))
    except ValueError as error:
        raise AuditError(f"{path.name} is not JSON ({error}); restore it") from error
    if not isinstance(description, dict):
        raise AuditError(f"{path.name} holds no table; restore it")
    found = description.get("format")
    if found != FORMAT:
        raise AuditError(
            f"{path.name} has format {found!r}, this version reads {FORMAT}; use the version that"
            " wrote it"
        )
    kinds = {"architecture": dict, "preparation": dict, "label_names": list, "digest": str}
    for key, kind in {**kinds, "notes": dict}.items():
        if not isinstance(description.get(key), kind):
            raise AuditError(f"{path.name} has no {kind.__name__} '{key}'; restore it")
    return description


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        cure = f"name a folder with {TENSORS_NAME} and {DESCRIPTION_NAME}"
        if not path.exists() and (path.parent / _STATE_NAME).is_file():
            cure = "a run has its model when it has finished: resume it"
        raise RunDirectoryError(f"{path} cannot be read ({error.strerror}); {cure}") from error


def _replace_file(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise RunDirectoryError(
            f"{path} cannot be written ({error.strerror}); free space or choose another folder"
        ) from error
