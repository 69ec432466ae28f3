"""The user's own code, named as `module:function` in the config.

The module is found as Python finds any other, and last in the current working directory. What the
code itself raises becomes one line; `--debug` shows its traceback.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedtrain.errors import ConfigError, FedtrainError


def is_function_reference(name: str) -> bool:
    """Return whether a config value has the form `module:function`."""
    return ":" in name


def load_function(reference: str, key: str) -> Callable[..., Any]:
    """Import the function that a config value names.

    Args:
        reference: `module:function`; the module may be dotted.
        key: The config key, for the message.

    Raises:
        ConfigError: The reference is malformed, the module cannot be imported, or it has no such
            function.
    """
    module_name, _, function_name = reference.partition(":")
    if not function_name.isidentifier() or not all(
        part.isidentifier() for part in module_name.split(".")
    ):
        raise ConfigError(
            f"{key} = '{reference}' is not of the form module:function; write e.g. 'my_study:build'"
        )
    module = _import_module(module_name, f"{key} = '{reference}'")
    function = getattr(module, function_name, None)
    if not callable(function):
        found = sorted(
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and not name.startswith("_")
        )
        raise ConfigError(
            f"{key} = '{reference}': module '{module_name}' has no function '{function_name}'; it"
            f" has {', '.join(found) or 'none'}"
        )
    return function  # type: ignore[no-any-return]  # callable() narrows Any to Any


def call_function(
    reference: str,
    key: str,
    *,
    positional: Sequence[Any] = (),
    keywords: Mapping[str, Any] | None = None,
) -> Any:
    """Import the function that a config value names and call it.

    Args:
        reference: `module:function`.
        key: The config key, for the message.
        positional: Arguments by position.
        keywords: Arguments by name.

    Raises:
        ConfigError: As `load_function`; or the function does not take these arguments, or raises.
    """
    function = load_function(reference, key)
    named = dict(keywords or {})
    try:
        inspect.signature(function).bind(*positional, **named)
    except TypeError as error:
        given = ", ".join([*(f"{value!r}" for value in positional), *named]) or "nothing"
        raise ConfigError(
            f"{key} = '{reference}' is called with {given}, but {error}; change its"
            " parameters or the options"
        ) from error
    except ValueError:  # a callable without a signature: the call will tell
        pass
    try:
        return function(*positional, **named)
    except FedtrainError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{key} = '{reference}' raised {describe_exception(error)}; mend it, --debug shows"
            " where"
        ) from error


def describe_exception(error: Exception) -> str:
    """Return an exception's kind and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _import_module(name: str, where: str) -> Any:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that a file here never hides an installed package
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            cure = "start the command in the folder that holds it, or install it"
        else:
            cure = "install what it imports"
        raise ConfigError(f"{where}: there is no module '{missing}'; {cure}") from error
    except Exception as error:
        raise ConfigError(
            f"{where}: the module cannot be imported ({describe_exception(error)}); mend it"
        ) from error
