"""Sites that a run goes without, to be tested on afterwards."""

import numpy as np

from fedtrain.config import PartitionSection
from fedtrain.data.frames import suggest_name
from fedtrain.data.partition import Partition
from fedtrain.data.records import Records
from fedtrain.errors import ConfigError


def count_dealt(section: PartitionSection) -> int | None:
    """Return how many sites records are dealt to: those of the run, and those left out."""
    if section.sites is None or section.leave_out is None:
        return section.sites
    return section.sites + len(section.leave_out)


def leave_out_sites(
    records: Records, partition: Partition, names: tuple[str, ...], *, left_out: tuple[str, ...]
) -> tuple[Records, Partition, tuple[str, ...]]:
    """Return records, partition and names without some of the sites; all others' stay as they are.

    Raises:
        ConfigError: There is no such site, or none would be left.
    """
    for name in left_out:
        if name not in names:
            raise ConfigError(
                f"there is no site {name!r} to leave out; {suggest_name(name, names)}"
            )
    kept = [site for site, name in enumerate(names) if name not in left_out]
    if not kept:
        raise ConfigError("partition.leave_out names every site; keep some to train at")
    rows = [partition.get_indices(site) for site in kept]
    chosen = np.concatenate(rows)
    ascending = np.sort(chosen)
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64)
    order = np.searchsorted(ascending, chosen).astype(np.int64)
    return records.take(ascending), Partition(order, offsets), tuple(names[site] for site in kept)
