"""Rules between what a model is for and the rest of the config."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fedtrain.config.whole import Config

CLASSIFICATION: Final = "classification"
_NUMBERS: Final = ("mse", "mae", "huber", "quantile")
# The losses of each task, its default first.
LOSSES: Final[dict[str, tuple[str, ...]]] = {
    CLASSIFICATION: ("cross_entropy", "focal", "bce"),
    "multi_label": ("bce",),
    "regression": _NUMBERS,
    "forecasting": _NUMBERS,
    "anomaly": _NUMBERS,
    "masked": _NUMBERS,
}
# Tasks in which a model returns its own input.
RECONSTRUCTING: Final = ("anomaly", "masked")
# Which tasks read which keys of the data section.
_KEYS: Final = {
    "targets": ("multi_label", "regression"),
    "target_bounds": ("regression", "forecasting"),
    "horizon": ("forecasting",),
    "mask_share": ("masked",),
}


def check_task(config: "Config") -> None:
    """Refuse keys that the task does not read, and what it cannot do.

    Raises:
        ValueError: In one line, with the cure.
    """
    data, task = config.data, config.data.task or CLASSIFICATION
    for key, tasks in _KEYS.items():
        if getattr(data, key) is not None and task not in tasks:
            raise ValueError(
                f"data.{key} has no effect while data.task = '{task}'; set data.task ="
                f" '{tasks[0]}' or remove it"
            )
    if config.training.loss not in (None, *LOSSES[task]):
        raise ValueError(
            f"training.loss = '{config.training.loss}' does not fit data.task = '{task}'; choose"
            f" {', '.join(LOSSES[task])}"
        )
    if task == CLASSIFICATION:
        return
    if config.training.class_weights is not None:
        raise ValueError(
            f"training.class_weights has no effect while data.task = '{task}' has no classes to"
            " balance; remove it"
        )
    if config.training.label_smoothing is not None:
        raise ValueError(
            f"training.label_smoothing = {config.training.label_smoothing:g} spreads a class over"
            f" others, data.task = '{task}' has none; remove it"
        )
    if config.audit.methods:
        raise ValueError(
            f"audit.methods = ['{config.audit.methods[0]}', ...] attack models of classes,"
            f" data.task = '{task}'; remove them"
        )
    if task == "masked" and data.augmentation is not None:
        raise ValueError(
            "data.augmentation changes the numbers that data.task = 'masked' hides; remove it"
        )
    if task in RECONSTRUCTING:
        if data.source == "text":
            raise ValueError(
                f"data.source = 'text' has ids and no numbers, which data.task = '{task}' predicts;"
                " take another source"
            )
        return
    _check_targets(config, task)
    if task == "forecasting":
        _check_forecasting(config)


def _check_targets(config: "Config", task: str) -> None:
    data = config.data
    if task != "multi_label":
        if data.target_bounds is None:
            raise ValueError(
                f"data.target_bounds is missing and data.task = '{task}' scales by it; set public"
                " bounds, e.g. data.target_bounds = [0, 100]"
            )
        if not data.target_bounds[0] < data.target_bounds[1]:
            raise ValueError(
                f"data.target_bounds = {list(data.target_bounds)}: the lower bound must be below"
                " the upper"
            )
    if data.classes is not None:
        raise ValueError(
            f"data.classes has no effect while data.task = '{task}'; name data.targets or remove it"
        )
    if config.partition.scheme in ("dirichlet", "shards"):
        raise ValueError(
            f"partition.scheme = '{config.partition.scheme}' deals records by class, of which"
            f" data.task = '{task}' has none; choose iid, quantity or natural"
        )


def _check_forecasting(config: "Config") -> None:
    if config.partition.scheme != "natural":
        raise ValueError(
            f"partition.scheme = '{config.partition.scheme}' would deal windows of one series to"
            " several sites; set partition.scheme = 'natural'"
        )
    if config.privacy.covers_records:
        raise ValueError(
            f"privacy.unit = '{config.privacy.unit}' would protect a window, and each measurement"
            f" is in many; set privacy.unit = 'site', or remove it"
        )
