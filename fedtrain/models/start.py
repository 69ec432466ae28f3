"""The model that a run starts from: drawn from its seed, or taken from a file.

A file is safetensors, a run directory, or TorchScript, of which the tensors alone are read; no
code in it is run. Its digest is part of the resolved config, so that all who read it read the same
bytes. Whoever may read this run's models may read its start, too: it must be public, or covered by
a guarantee of its own. This run's covers the records that it trains on, and no earlier ones.
"""

import hashlib
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fedtrain.config import Config, ModelSection
from fedtrain.errors import AuditError, ConfigError, PeerError
from fedtrain.models.registry import build_model
from fedtrain.models.start_file import SAFETENSORS, find_start_file, read_start_file
from fedtrain.models.torchscript_file import read_torchscript
from fedtrain.models.trained_part import ADAPTERS, has_frozen_part, match_names
from fedtrain.seeds import make_torch_generator

# Before the name of a parameter, in a start file: how much what was learned rests on it.
IMPORTANCE: Final = "importance."


def build_start_model(
    config: Config,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    input_dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build the model that a run starts from.

    Args:
        config: The resolved config.
        input_shape: Shape of one record.
        classes: Number of logits.
        input_dtype: float32, or int64 for ids.

    Raises:
        ConfigError: See `build_model`; or there is one class, or the start file does not fit the
            model.
        AuditError: The start file is not the one that the config was resolved with.
    """
    if classes < 2 and config.data.task in (None, "classification"):
        raise ConfigError(
            f"classes = {classes} leaves nothing to tell apart; the data needs at least 2 labels"
        )
    model = build_model(
        config.model,
        input_shape=input_shape,
        classes=classes,
        generator=make_torch_generator(config.run.seed, "start model"),
        input_dtype=input_dtype,
    )
    if config.model.start_from is not None:
        _load_start(model, config.model)
    return model


def build_site_model(
    config: Config,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    input_dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build the model of a site: its trained part is overwritten by what the coordinator sends.

    The start file is opened only where a part of the model is frozen, which nobody sends, or where
    the start is what every step is pulled towards; and no other bytes of it are parsed than those
    that the config names.

    Raises:
        PeerError: The config does not name the bytes of its start file.
        ConfigError: See `build_start_model`; also where the file is not the one.
    """
    section = config.model
    if has_frozen_part(section) or config.continual is not None:
        if section.start_from is not None and section.start_digest is None:
            raise PeerError(
                "model.start_digest is missing: a site opens no file of which the coordinator does"
                " not know the bytes"
            )
        try:
            return build_start_model(
                config, input_shape=input_shape, classes=classes, input_dtype=input_dtype
            )
        except AuditError as error:
            # What a site answers must not tell which files are on its disk.
            raise ConfigError(str(error)) from error
    return build_model(
        config.model,
        input_shape=input_shape,
        classes=classes,
        generator=torch.Generator(),
        input_dtype=input_dtype,
    )


def read_importance(section: ModelSection) -> dict[str, Tensor]:
    """Return the importances that the start file has beside its parameters, by their names."""
    found = _read_start(section)
    return {k.removeprefix(IMPORTANCE): t for k, t in found.items() if k.startswith(IMPORTANCE)}


def _load_start(model: nn.Module, section: ModelSection) -> None:
    found = {k: t for k, t in _read_start(section).items() if not k.startswith(IMPORTANCE)}
    own = {k: t for k, t in model.state_dict().items() if not _is_new_adapter(k, found)}
    every = sorted({*own, *found})
    fresh: set[str] = set()
    if section.reinitialise is not None:
        fresh = match_names(every, section.reinitialise, key="model.reinitialise")
    for name in every:
        if name not in fresh:
            _verify_fit(name, own.get(name), found.get(name))
    with torch.no_grad():
        for name, tensor in own.items():
            if name not in fresh:
                tensor.copy_(found[name])


def _read_start(section: ModelSection) -> dict[str, Tensor]:
    path = Path(section.start_from or "")
    file = find_start_file(path)
    content = read_start_file(file)
    digest = hashlib.sha256(content).hexdigest()
    if section.start_digest not in (None, digest):
        raise AuditError(
            f"model.start_from = '{path}' has digest {digest[:12]}, the config says"
            f" {str(section.start_digest)[:12]}; restore the file, or remove model.start_digest"
        )
    return _read_tensors(file, content)


def _is_new_adapter(name: str, found: dict[str, Tensor]) -> bool:
    """Say whether a tensor is of an adapter that the start model did not have."""
    return name.endswith(ADAPTERS) and name not in found


def _verify_fit(name: str, own: Tensor | None, found: Tensor | None) -> None:
    cure = f"list it in model.reinitialise, e.g. ['{name}'], or change the model"
    if own is None:
        raise ConfigError(f"model.start_from: the model has no '{name}'; {cure}")
    if found is None:
        raise ConfigError(f"model.start_from: the file has no '{name}'; {cure}")
    if own.shape != found.shape:
        raise ConfigError(
            f"model.start_from: '{name}' has shape {tuple(found.shape)}, the model's has"
            f" {tuple(own.shape)}; {cure}"
        )
    if own.is_floating_point() and not bool(torch.isfinite(found.float()).all()):
        raise ConfigError(f"model.start_from: '{name}' is not finite; choose another file")


def _read_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        if path.suffix == SAFETENSORS:
            return safetensors.torch.load(content)
        return read_torchscript(content, name=str(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"model.start_from = '{path}' is no {path.suffix} file of tensors"
            f" ({str(error).splitlines()[0]}); a pickled state is not read, save it as safetensors"
        ) from error
