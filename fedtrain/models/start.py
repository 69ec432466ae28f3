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
from fedtrain.errors import AuditError, ConfigError
from fedtrain.models.registry import build_model
from fedtrain.models.saved import TENSORS_NAME
from fedtrain.models.trained_part import ADAPTERS, has_frozen_part, match_names
from fedtrain.seeds import make_torch_generator

TORCHSCRIPT: Final = (".pt", ".pth", ".ts", ".torchscript")
_SAFETENSORS: Final = ".safetensors"


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
        ConfigError: See `build_model`; or the start file does not fit the model.
        AuditError: The start file is not the one that the config was resolved with.
    """
    model = build_model(
        config.model,
        input_shape=input_shape,
        classes=classes,
        generator=make_torch_generator(config.run.seed, "start model"),
        input_dtype=input_dtype,
    )
    if config.model.start_from is not None:
        _load_start(model, config.model, Path(config.model.start_from))
    return model


def build_site_model(
    config: Config,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    input_dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build the model of a site: its trained part is overwritten by what the coordinator sends.

    The start file is opened only where a part of the model is frozen, which nobody sends.
    """
    if has_frozen_part(config.model):
        return build_start_model(
            config, input_shape=input_shape, classes=classes, input_dtype=input_dtype
        )
    return build_model(
        config.model,
        input_shape=input_shape,
        classes=classes,
        generator=torch.Generator(),
        input_dtype=input_dtype,
    )


def resolve_start(section: ModelSection) -> ModelSection:
    """Return the section with the digest of its start file; one that has it stays as it is.

    Raises:
        ConfigError: The file cannot be read, or a key needs one and there is none.
    """
    if section.start_from is None:
        for key in ("start_digest", "reinitialise"):
            if getattr(section, key) is not None:
                raise ConfigError(f"model.{key} has no effect without model.start_from; remove it")
    if section.start_from is None or section.start_digest is not None:
        return section
    digest = hashlib.sha256(_read_bytes(_find_file(Path(section.start_from)))).hexdigest()
    return section.model_copy(update={"start_digest": digest})


def _load_start(model: nn.Module, section: ModelSection, path: Path) -> None:
    file = _find_file(path)
    content = _read_bytes(file)
    digest = hashlib.sha256(content).hexdigest()
    if section.start_digest not in (None, digest):
        raise AuditError(
            f"model.start_from = '{path}' has digest {digest[:12]}, the config says"
            f" {str(section.start_digest)[:12]}; restore the file, or remove model.start_digest"
        )
    found = _read_tensors(file, content)
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


def _find_file(path: Path) -> Path:
    return path / TENSORS_NAME if path.is_dir() else path


def _read_bytes(path: Path) -> bytes:
    if path.suffix not in (_SAFETENSORS, *TORCHSCRIPT):
        raise ConfigError(
            f"model.start_from = '{path}': give a .safetensors file, a run directory, or a"
            f" TorchScript file ({', '.join(TORCHSCRIPT)})"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"model.start_from = '{path}' cannot be read ({error.strerror}); check it"
        ) from error


def _read_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        if path.suffix == _SAFETENSORS:
            return safetensors.torch.load(content)
        return _read_torchscript(content)
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"model.start_from = '{path}' is no {path.suffix} file of tensors"
            f" ({str(error).splitlines()[0]}); a pickled state is not read, save it as safetensors"
        ) from error


def _read_torchscript(content: bytes) -> dict[str, Tensor]:
    import io
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have torch.export
        module = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}
