"""What data must satisfy before anything is trained on it, and what is only worth a warning."""

import logging
from collections.abc import Iterable
from typing import Final

import numpy as np

from fedtrain.config import Config
from fedtrain.data.columns import Category, Table
from fedtrain.data.frames import suggest_name
from fedtrain.data.partition import Partition
from fedtrain.data.records import Records, find_unusable, mark_usable
from fedtrain.data.requirements import resolve_preparation_kind
from fedtrain.data.targets import has_targets
from fedtrain.errors import ConfigError, DataError

logger = logging.getLogger("fedtrain.data")

_NAMES_IN_A_LINE: Final = 5


def verify_records(
    records: Records, partition: Partition, names: tuple[str, ...], *, min_records: int
) -> None:
    """Check every value and every site.

    Args:
        records: All records.
        partition: Which site has which.
        names: Name of each site.
        min_records: Fewest records a site may have; 0: no site is refused for too few.

    Raises:
        DataError: A site has too few records, a value is NaN or infinite, or a label is none of
            the public classes; the message names the site.
    """
    if min_records:
        _verify_sizes(partition, names, min_records)
    _verify_values(records, partition, names)


def leave_out_unusable(records: Records, config: Config) -> Records:
    """Return the records that a run can use, each judged by itself.

    Left out are those that `verify_records` and the preparation refuse: a value that is NaN (in a
    table only where nothing fills it), infinite or beyond float32, a label that is no public class,
    or a target that is none. The central test set, which is no site's, stays as it is.
    """
    filled = resolve_preparation_kind(config, records.public) == "bounds"
    usable = mark_usable(records.features, missing_allowed=filled)
    if records.public.label_names is not None:
        usable &= records.labels.recode(records.public.label_names) >= 0
    if records.targets is not None:
        usable &= np.isfinite(records.targets).all(axis=1)
    if usable.all():
        return records
    logger.warning("event=unusable_records_left_out")
    return records.take(np.flatnonzero(usable))


def verify_columns(records: Records) -> None:
    """Raise DataError where `data.columns` names a column that the table does not have."""
    if isinstance(records.features, Table):
        for name in records.public.columns or ():
            if name not in records.features.columns:
                raise DataError(
                    f"data.columns names no column {name!r};"
                    f" {suggest_name(name, records.features.columns)}"
                )


def verify_persons(records: Records, config: Config) -> None:
    """Raise ConfigError where persons are to be protected and the source does not tell them."""
    told = records.persons is not None and records.person_digests is not None
    if config.privacy.covers_persons and not told:
        raise ConfigError(
            f"privacy.unit = {config.privacy.unit!r} needs the person of each record, which"
            f" data.source = {config.data.source!r} does not say here; name data.person_column"
            " (csv, parquet), save an array 'person' (npz), or return persons from your function"
        )


def _verify_sizes(partition: Partition, names: tuple[str, ...], min_records: int) -> None:
    sizes = partition.count_records()
    smallest = int(np.argmin(sizes))
    if sizes[smallest] == 0:
        raise DataError(f"site {names[smallest]!r} has no rows with a label; fill or remove it")
    if sizes[smallest] < min_records:
        raise DataError(
            f"site {names[smallest]!r} has fewer records than partition.min_records ="
            f" {min_records}; lower that or remove the site"
        )


def _verify_values(records: Records, partition: Partition, names: tuple[str, ...]) -> None:
    found = find_unusable(records.features)
    where = names[int(partition.compute_sites()[found[0]])] if found else ""
    if found is None and records.central is not None:
        found, where = find_unusable(records.central[0]), "central test set"
    if found is not None:
        raise DataError(
            f"site {where!r}: {found[1]} holds NaN, infinity or a number beyond float32; correct"
            " or remove those records"
        )
    known = records.public.label_names
    if known is None:
        return
    unknown = records.labels.recode(known) < 0
    if unknown.any():
        row = int(np.argmax(unknown))
        label = records.labels.names[int(records.labels.codes[row])]
        raise DataError(
            f"site {names[int(partition.compute_sites()[row])]!r}: label {label!r} is none of the"
            f" {len(known)} classes ({', '.join(known[:20])}); correct it or data.classes"
        )


def warn_of_poor_sites(
    labels: Category, partition: Partition, names: tuple[str, ...], *, config: Config
) -> None:
    """Log the names of sites with one class, or with fewer training records than a batch."""
    if not has_targets(config):
        pairs = np.unique(partition.compute_sites() * len(labels.names) + labels.codes)
        classes = np.bincount(pairs // len(labels.names), minlength=len(names))
        _warn("one_class", (names[site] for site in np.flatnonzero(classes == 1)))
    if config.training.sampling == "shuffle":
        share = 1 - config.data.validation_fraction - config.data.test_fraction
        small = partition.count_records() * share < config.training.batch_size
        _warn("fewer_records_than_a_batch", (names[site] for site in np.flatnonzero(small)))


def _warn(event: str, sites: Iterable[str]) -> None:
    """Log one line that names a few of the sites."""
    every = list(sites)
    if every:
        more = len(every) - _NAMES_IN_A_LINE
        tail = f" and {more} more" if more > 0 else ""
        logger.warning("event=%s sites=%s%s", event, ",".join(every[:_NAMES_IN_A_LINE]), tail)
