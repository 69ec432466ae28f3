"""Trees of plain values as YAML, in the part of it that needs no library to be written safely."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def to_yaml(tree: Mapping[str, Any]) -> str:
    """Return a tree of texts, numbers, lists and tables as YAML; null values are left out.

    Texts are double-quoted as in JSON, which YAML 1.2 reads as the same text whatever is in it.
    """
    return "".join(f"{line}\n" for line in _write_table(tree, ""))


def _write_table(tree: Mapping[str, Any], indent: str) -> Iterable[str]:
    for key, value in tree.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _write_table(value, f"{indent}  ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield f"{indent}{key}:" if value else f"{indent}{key}: []"
            yield from _write_list(value, indent)
        else:
            yield f"{indent}{key}: {_write_scalar(value)}"


def _write_list(values: Sequence[Any], indent: str) -> Iterable[str]:
    for value in values:
        if isinstance(value, Mapping):
            first, *rest = _write_table(value, f"{indent}  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        else:
            yield f"{indent}- {_write_scalar(value)}"


def _write_scalar(value: Any) -> str:
    # No markup, wherever the text may be shown.
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e")
