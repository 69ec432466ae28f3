"""What may be known about a data set without looking at a record."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from fedtrain.config import Config
from fedtrain.data.labels import EXPRESSION_NAMES, parse_expression
from fedtrain.errors import ConfigError, PeerError

# The name by which data.bounds addresses a source whose records are one array: data.bounds.x.
ARRAY_NAME: Final = "x"


@dataclass(frozen=True)
class PublicConstants:
    """What the source's format or the config fixes publicly; None where neither does.

    Attributes:
        input_shape: Shape of one record of an array source, e.g. `(1, 28, 28)`; None for tables.
        value_range: Lowest and highest value that an array source can hold.
        label_names: Names of the classes, in the order of their ids.
        columns: Feature columns of a table, in order; None for array sources.
        is_discrete: Whether features are ids (text) and not quantities.
    """

    input_shape: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None
    label_names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    is_discrete: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the constants as values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "PublicConstants":
        """Return what `to_json` wrote.

        Raises:
            PeerError: The tree is not of that form.
        """
        try:
            tuples = ("input_shape", "value_range", "label_names", "columns")
            values = {key: None if tree[key] is None else tuple(tree[key]) for key in tuples}
            return cls(**values, is_discrete=bool(tree["is_discrete"]))
        except (KeyError, TypeError) as error:
            raise PeerError("a site's public constants cannot be read") from error


def apply_config(public: PublicConstants, config: Config) -> PublicConstants:
    """Return the constants with what the config adds: classes, columns, the bounds of arrays.

    Raises:
        ConfigError: A label expression has two outcomes but `data.classes` has not two names.
    """
    data = config.data
    label_names = data.classes or public.label_names
    if data.label is not None and parse_expression(data.label) is not None:
        label_names = data.classes or EXPRESSION_NAMES
        if len(label_names) != 2:
            raise ConfigError(
                f"data.classes has {len(label_names)} names but data.label ="
                f" {data.label!r} has two outcomes; name the false and the true one"
            )
    return replace(
        public,
        label_names=label_names,
        columns=data.columns or public.columns,
        value_range=data.bounds.get(ARRAY_NAME, public.value_range)
        if public.columns is None
        else None,
    )
