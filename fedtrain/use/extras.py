"""Packages that only some commands need."""

import importlib
from typing import Any

from fedtrain.errors import ConfigError


def require(module: str, *, extra: str) -> Any:
    """Import a module of an optional extra.

    Raises:
        ConfigError: It is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{module.split('.')[0]} is not installed; pip install 'fedtrain[{extra}]'"
        ) from error
