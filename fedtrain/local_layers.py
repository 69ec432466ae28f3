"""Which tensors of a model stay at their site: FedBN's idea, by name patterns.

Shapes: d is the length of the flat parameter vector.

References:
    FedBN, Li et al. 2021, which keeps batch norm local; here any tensors.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from fedtrain.errors import ConfigError
from fedtrain.params import Layout, Vector


def find_local_layers(layout: Layout, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the tensors that stay at their site, in the model's order.

    Raises:
        ConfigError: A pattern matches none, or all of the model would be local.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layout.names):
            raise ConfigError(
                f"personalisation.local_layers: {pattern!r} matches no tensor of the model; it has"
                f" {', '.join(layout.names)}"
            )
    found = tuple(n for n in layout.names if any(fnmatchcase(n, one) for one in patterns))
    if len(found) == len(layout.names):
        raise ConfigError(
            f"personalisation.local_layers = {list(patterns)} matches every tensor of the model, so"
            " that nothing would be averaged; leave some out"
        )
    return found


def restore_local_layers(
    layout: Layout, patterns: Sequence[str], vector: Vector, source: Vector
) -> Vector:
    """Return a vector `(d,)` whose local layers are those of another.

    Args:
        layout: Of the model.
        patterns: Which are local.
        vector: Where all else is from, `(d,)`.
        source: Where the local layers are from, `(d,)`.
    """
    result = vector.copy()
    parts, others = layout.split(result), layout.split(source)
    for name in find_local_layers(layout, patterns):
        parts[name][...] = others[name]
    return result
