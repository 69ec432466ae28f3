"""The tensors of a TorchScript file, of which no code is run.

The file is a ZIP archive of code and values. As it is loaded, torch runs the code of
`__setstate__`, where a class has that, and its own C++ for classes of its own; a file with either
is refused. What was looked at is what is loaded: the archive is written anew from the parts that
were read, so that two readers of one ZIP file cannot disagree on what is in it.
"""

import io
import warnings
import zipfile
from typing import Final

import torch
from torch import Tensor

from fedtrain.errors import ConfigError

_RUNS: Final = ("__setstate__", "torch.classes")


def read_torchscript(content: bytes, *, name: str) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript file by their names.

    Args:
        content: The file.
        name: What it is called, for a message.

    Raises:
        ConfigError: It is no ZIP archive, or code of it would be run.
        RuntimeError: torch cannot load it.

    Guarantees:
        Nothing of the file is executed: functions are compiled, and none is called.
    """
    archive = _rewrite(content, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have torch.export
        module = torch.jit.load(archive, map_location="cpu")  # type: ignore[no-untyped-call]
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def _rewrite(content: bytes, name: str) -> io.BytesIO:
    """Return an archive of the parts, each of which was looked at."""
    rewritten = io.BytesIO()
    try:
        with (
            zipfile.ZipFile(io.BytesIO(content)) as old,
            zipfile.ZipFile(rewritten, "w", zipfile.ZIP_STORED) as new,
        ):
            for part in dict.fromkeys(old.namelist()):
                data = old.read(part)
                _verify_inert(part, data, name)
                new.writestr(part, data)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ConfigError(
            f"model.start_from = '{name}' is no TorchScript file ({error}); a pickled state is not"
            " read, save it as safetensors"
        ) from error
    rewritten.seek(0)
    return rewritten


def _verify_inert(part: str, data: bytes, name: str) -> None:
    if not part.endswith((".py", ".pkl")):
        return  # tensors, constants' bytes, the version
    for marker in _RUNS:
        if marker.encode() in data:
            raise ConfigError(
                f"model.start_from = '{name}' runs code as it is loaded ({marker}); save its"
                " tensors as safetensors"
            )
