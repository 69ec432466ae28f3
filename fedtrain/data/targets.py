"""What a record is to be mapped to where that is no class: numbers, or several labels at once.

Shapes: n records, k outputs.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.config import Config
from fedtrain.data.columns import Category
from fedtrain.errors import ConfigError, DataError

# Tasks whose records have targets `(n, k)` in place of a class.
TARGET_TASKS: Final = ("regression", "forecasting", "multi_label")
_LARGEST: Final = float(np.finfo(np.float32).max)


def has_targets(config: Config) -> bool:
    """Say whether the config's task maps records to numbers or to several labels."""
    return config.data.task in TARGET_TASKS


def read_targets(
    values: NDArray[Any], config: Config, what: str, *, strict: bool = True
) -> NDArray[np.float32]:
    """Return the targets of records as `(n, k)`.

    Args:
        values: `(n,)` or `(n, k)`.
        config: The run's config.
        what: Where they are from, for a message.
        strict: Refuse one that cannot be used; else its row is NaN.

    Raises:
        DataError: They are no numbers, not finite, or for several labels not 0 or 1.
    """
    if values.ndim not in (1, 2) or values.dtype.kind not in "fiub":
        raise DataError(
            f"{what}: targets have shape {values.shape} and dtype {values.dtype}; give one row of"
            " numbers a record"
        )
    targets = values.reshape(len(values), -1).astype(np.float64)
    if not strict:
        usable = mark_targets(targets, config.data.task)[:, None]
        return np.where(usable, targets, np.nan).astype(np.float32)
    if not (np.abs(targets) <= _LARGEST).all():
        raise DataError(f"{what}: a target is NaN or infinite; correct or remove that record")
    if config.data.task == "multi_label" and not np.isin(targets, (0.0, 1.0)).all():
        raise DataError(
            f"{what}: a label is neither 0 nor 1; data.task = 'multi_label' needs those"
        )
    return targets.astype(np.float32)


def mark_targets(values: NDArray[np.float64], task: str | None) -> NDArray[np.bool_]:
    """Say of each row `(n, k)` whether `read_targets` takes it, `(n,)`; NaN it does not."""
    usable = np.abs(values) <= _LARGEST
    if task == "multi_label":
        usable &= np.isin(values, (0.0, 1.0))
    rows: NDArray[np.bool_] = np.all(usable, axis=1)
    return rows


def name_outputs(config: Config, count: int) -> tuple[str, ...]:
    """Return a public name for each of the targets' columns.

    Raises:
        ConfigError: The config names another number of them.
    """
    data = config.data
    if data.targets is not None:
        if len(data.targets) != count:
            raise ConfigError(
                f"data.targets has {len(data.targets)} names, the source {count} targets; name each"
            )
        return data.targets
    name = data.label or "target"
    return (name,) if count == 1 else tuple(f"{name}{number}" for number in range(1, count + 1))


def label_alike(names: tuple[str, ...], records: int) -> Category:
    """Return the labels of records that have targets: all alike, nothing is dealt by them."""
    return Category(np.zeros(records, np.int32), names)


def verify_targets(targets: NDArray[np.float32] | None, config: Config) -> None:
    """Refuse a source whose records do not have what the config's task needs.

    Raises:
        ConfigError: Targets are missing, or there in place of classes.
    """
    if has_targets(config) and targets is None:
        raise ConfigError(
            f"data.task = '{config.data.task}' needs targets, data.source = {config.data.source!r}"
            " has classes; take csv, parquet, npz or a function of your own, or remove data.task"
        )
    if targets is not None and not has_targets(config):
        raise ConfigError(
            f"data.source = {config.data.source!r} has numbers to predict and no classes; set"
            " data.task = 'regression' with data.target_bounds"
        )


def scale_targets(
    targets: NDArray[np.float32], bounds: tuple[float, float] | None
) -> NDArray[np.float32]:
    """Return targets in widths of their public bounds, clipped to [0, 1]; labels as they are."""
    if bounds is None:
        return targets
    low, high = bounds
    scaled: NDArray[np.float32] = ((targets - low) / (high - low)).clip(0, 1).astype(np.float32)
    return np.ascontiguousarray(scaled)
