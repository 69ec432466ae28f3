"""JSON in one form: equal values have equal text, and other text for the same values is refused."""

import json
from typing import Any, Final, Protocol, Self, TypeVar

from pydantic import ValidationError

from fedtrain.errors import AuditError

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


class Written(Protocol):
    """A pydantic model that is written as one text."""

    @classmethod
    def model_validate_json(cls, json_data: str) -> Self:
        """Return the model that a JSON text describes."""

    def to_json(self) -> str:
        """Return the one text that it is written as."""


W = TypeVar("W", bound=Written)


def to_canonical(tree: Any) -> str:
    """Return JSON text that is equal for equal values: sorted keys, no white space."""
    return _ENCODER.encode(tree)


def read_exactly(kind: type[W], text: str, *, name: str) -> W:
    """Read what `to_json` wrote.

    Args:
        kind: What it is to be.
        text: All of it.
        name: What an error calls it, with its article.

    Raises:
        AuditError: It is not, byte for byte, the text of one.
    """
    try:
        found = kind.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise AuditError(f"not {name}: {place + ': ' if place else ''}{problem['msg']}") from error
    if found.to_json() != text:
        raise AuditError(f"not {name}: not in the one form that it is written in; restore it")
    return found
