"""A config as nested dicts, as TOML and as one digest."""

import hashlib
from typing import Any, Final

import tomli_w

from fedtrain.canonical import to_canonical
from fedtrain.config.whole import Config

# Keys that say where and how a run is computed, not what it computes; they are not in the digest.
LOCAL_KEYS: Final = (
    ("run", "directory"),
    ("data", "path"),
    ("model", "start_from"),
    ("simulation",),
)


def compute_digest(config: Config) -> str:
    """Return the SHA-256 (hex) of the config's canonical form, without `LOCAL_KEYS`."""
    tree = to_tree(config)
    for keys in LOCAL_KEYS:
        table = tree
        for key in keys[:-1]:
            table = table.get(key, {})
        table.pop(keys[-1], None)
    return hashlib.sha256(to_canonical(tree).encode()).hexdigest()


def to_tree(config: Config) -> dict[str, Any]:
    """Return the config as nested dicts of TOML's types, keys without a value left out."""
    tree: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    return tree


def to_toml(config: Config) -> str:
    """Return the config as TOML that `parse_config` reads back to an equal config."""
    return tomli_w.dumps(to_tree(config))
