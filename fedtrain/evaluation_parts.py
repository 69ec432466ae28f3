"""What an evaluation sums up beside validation and test: sites' own models, groups of records.

Both sides list the parts from the config, so that nothing of the layout is sent.
"""

from typing import Final

from fedtrain.config import Config

OWN: Final = "own"
GROUP: Final = "group:"


def list_parts(config: Config) -> tuple[str, ...]:
    """Return the names of the parts, in the order in which they stand in the vector.

    `own` is each site's own model on its test records; `group:NAME` the global model on those test
    records whose group is NAME, by `data.group_column`.
    """
    own = config.personalisation is not None and config.personalisation.model is not None
    return (*((OWN,) if own else ()), *(f"{GROUP}{name}" for name in list_groups(config)))


def list_groups(config: Config) -> tuple[str, ...]:
    """Return the public names of the groups; empty without `data.group_column`."""
    column = config.data.group_column
    return () if column is None else config.data.categories[column]
