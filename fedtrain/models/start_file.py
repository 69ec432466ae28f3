"""The file that a run's model starts from: found, read and named by its digest."""

import hashlib
from pathlib import Path
from typing import Final

from fedtrain.config import ModelSection
from fedtrain.errors import ConfigError
from fedtrain.scenarios import find_shipped_folder

SAFETENSORS: Final = ".safetensors"
TORCHSCRIPT: Final = (".pt", ".pth", ".ts", ".torchscript")
_IN_A_RUN: Final = "model.safetensors"


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
    digest = hashlib.sha256(read_start_file(find_start_file(Path(section.start_from)))).hexdigest()
    return section.model_copy(update={"start_digest": digest})


def find_start_file(path: Path) -> Path:
    """Return the file that a path means: of a run directory, its model.

    A relative path starts at the current folder; what is not there, at the scenarios that ship.
    """
    if not path.is_absolute() and not path.exists():
        shipped = find_shipped_folder() / path
        path = shipped if shipped.is_file() else path
    return path / _IN_A_RUN if path.is_dir() else path


def read_start_file(path: Path) -> bytes:
    """Return the file's bytes.

    Raises:
        ConfigError: It cannot be read, or its name is of no known kind.
    """
    if path.suffix not in (SAFETENSORS, *TORCHSCRIPT):
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
