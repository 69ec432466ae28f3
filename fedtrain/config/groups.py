"""What metrics by group need of the rest of a config."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedtrain.config.whole import Config


def verify_groups(config: "Config") -> None:
    """Refuse groups that are not public, or of which no metric would be computed or sent.

    Raises:
        ValueError: See above.
    """
    data = config.data
    if data.group_column is None:
        return
    where = f"data.group_column = '{data.group_column}'"
    if data.source not in ("csv", "parquet"):
        raise ValueError(f"{where}: data.source = '{data.source}' has no columns; remove it")
    if not data.categories.get(data.group_column):
        raise ValueError(
            f"{where} needs public groups; list them as data.categories.{data.group_column}"
        )
    if data.task not in (None, "classification"):
        raise ValueError(
            f"{where}: groups are compared by confusion, which data.task = '{data.task}' has none"
            " of; remove it"
        )
    if data.test_fraction == 0:
        raise ValueError(
            f"{where}: data.test_fraction = 0 leaves nothing to compare; set it to 0.2"
        )
    if config.privacy.unit != "none" and config.privacy.metrics != "uncovered":
        raise ValueError(
            f"{where}: privacy.metrics = 'suppressed' lets no metric leave a site; set 'uncovered'"
        )
