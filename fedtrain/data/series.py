"""A series of measurements as records: windows of what was, and what came after.

A measurement is in many windows, so that a window is no unit that protection could be about; and
windows that overlap must not be in train and test both. Splits follow the order of time.

Shapes: t measurements, m windows, l steps of a window, h steps ahead.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedtrain.config import Config
from fedtrain.data.columns import Category, sort_names
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records
from fedtrain.data.splits import SplitIndices
from fedtrain.data.targets import label_alike, mark_targets, read_targets
from fedtrain.errors import ConfigError, DataError


def build_windows(
    series: Mapping[str, NDArray[np.float64]], config: Config, *, strict: bool = True
) -> Records:
    """Cut each site's series into overlapping windows.

    Args:
        series: Measurements `(t,)` in order of time, by site.
        config: With `data.sequence_length`, `data.horizon` and `data.target_bounds`.
        strict: Refuse a series that is too short or has a gap; else it has fewer windows or none:
            to refuse it would tell of its site.

    Returns:
        Records `(m, l)` with targets `(m, h)`, each site's in order of time.

    Raises:
        DataError: A series is too short, or has a gap.
    """
    length, horizon = config.data.sequence_length, config.data.horizon or 1
    parts, codes = [], []
    names = sort_names(series)
    for code, name in enumerate(names):
        windows = _cut_series(
            np.asarray(series[name]), length + horizon, config, site=name, strict=strict
        )
        parts.append(windows)
        codes.append(np.full(len(windows), code, np.int32))
    joined = np.ascontiguousarray(np.concatenate(parts))
    outputs = tuple(f"step{step}" for step in range(1, horizon + 1))
    return Records(
        features=joined[:, :length],
        labels=label_alike(outputs, len(joined)),
        public=PublicConstants(
            input_shape=(length,), value_range=config.data.target_bounds, label_names=outputs
        ),
        sites=Category(np.concatenate(codes), names),
        targets=joined[:, length:],
    )


def _cut_series(
    series: NDArray[np.float64], width: int, config: Config, *, site: str, strict: bool
) -> NDArray[np.float32]:
    """Return the windows of one site's series, `(m, width)`."""
    what = f"series of site {site!r}"
    usable = np.ones(len(series), np.bool_)
    if not strict and series.ndim == 1:
        usable = mark_targets(series[:, None], None)
        series = np.where(usable, series, 0.0)
    values = read_targets(series, config, what)
    if values.shape[1] != 1:
        raise DataError(f"{what} has {values.shape[1]} columns; give one")
    if len(values) < width:
        if not strict:
            return np.empty((0, width), np.float32)
        raise DataError(
            f"{what} has {len(values)} measurements, below data.sequence_length + data.horizon ="
            f" {width}; lower those"
        )
    whole = np.lib.stride_tricks.sliding_window_view(usable, width).all(axis=1)
    windows: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(values[:, 0], width)
    return windows[whole]


def split_in_time(count: int, config: Config) -> SplitIndices:
    """Split a site's windows: the last are tested on, those before them choose the best model.

    Between two splits those windows are left out that have a measurement of both.

    Args:
        count: Windows of the site, in order of time.
        config: The run's config.

    Raises:
        ConfigError: Nothing is left to train on, and nothing is protected: how long its series is
            would be told by the refusal of a protected site.
    """
    data = config.data
    gap = data.sequence_length + (data.horizon or 1) - 1
    test, validation = round(count * data.test_fraction), round(count * data.validation_fraction)
    end = count
    parts = []
    for wanted in (test, validation):
        parts.append(np.arange(max(end - wanted, 0), max(end, 0)))
        end -= wanted + gap if wanted else 0
    if end < 1 and config.privacy.unit == "none":
        raise ConfigError(
            f"a series of {count} windows leaves none to train on, with {gap} left out before each"
            " of validation and test; lower data.sequence_length or the fractions"
        )
    return SplitIndices(np.arange(max(end, 0)), parts[1], parts[0])
