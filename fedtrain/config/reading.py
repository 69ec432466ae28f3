"""A config read from TOML or mappings, with overrides; a wrong one is refused in one line."""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fedtrain.config.whole import Config
from fedtrain.errors import ConfigError


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Read a TOML file and check it.

    Args:
        path: The file.
        overrides: Texts `section.key=value`, value in TOML's notation or a bare word.

    Returns:
        The config as written, defaults filled in, not yet resolved.

    Raises:
        ConfigError: The file cannot be read or does not satisfy the schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); give a TOML file") from error
    return parse_config(text, overrides, name=str(path))


def parse_config(text: str, overrides: Iterable[str] = (), *, name: str = "config") -> Config:
    """Check a config given as TOML text; see `load_config`."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from error
    for override in overrides:
        _apply_override(tree, override)
    return build_config(tree, name=name)


def build_config(tree: Mapping[str, Any], *, name: str = "config") -> Config:
    """Check a config given as nested mappings; see `load_config`."""
    try:
        return Config.model_validate_json(json.dumps(tree, default=str))  # JSON: arrays are tuples
    except ValidationError as error:
        raise ConfigError(f"{name}: {describe_problem(error, Config)}") from error


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or len(parts) < 2 or not all(parts):
        raise ConfigError(f"--set {override}: write section.key=value, e.g. federation.rounds=20")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = tree
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: {part} is a value, not a section")
    table[parts[-1]] = value


def describe_problem(error: ValidationError, schema: type[BaseModel]) -> str:
    """Say the first problem in one line: where, which value, which bound, what to do."""
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"]]
    where = ".".join(location)
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"unknown key {where}; {_suggest(location, schema)}"
    if problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
        return f"{where}.{text}" if where else text
    shown = json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, dict):
        shown = "a table"
    return f"{where} = {shown}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _suggest(location: list[str], schema: type[BaseModel]) -> str:
    model = schema
    for part in location[:-1]:
        annotation = model.model_fields[part].annotation
        (model,) = (one for one in get_args(annotation) or (annotation,) if one is not NoneType)
    names = sorted(model.model_fields)
    near = difflib.get_close_matches(location[-1], names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {'.'.join([*location[:-1], near[0]])}?"
    return f"known here: {', '.join(names)}"
