"""Records that a site has twice.

Shapes: n records.
"""

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.columns import Numeric, Table
from fedtrain.data.partition import Partition
from fedtrain.data.records import Records


def drop_duplicates(records: Records, partition: Partition) -> tuple[Records, Partition]:
    """Leave out every record that equals an earlier one of its site, label and person included.

    Args:
        records: All records.
        partition: Which site has which.

    Returns:
        The records that are kept, and the partition of those.

    Guarantees:
        * A record more or less at one site, or a person, changes what is kept there by at most
          that record, or that person's: whoever is kept of equal records, they are equal.
    """
    keys = _make_keys(records)
    kept = []
    for site in range(len(partition)):
        rows = partition.get_indices(site)
        _, first = np.unique(keys[rows], return_index=True)
        kept.append(rows[np.sort(first)])
    sizes = [len(rows) for rows in kept]
    chosen = np.concatenate(kept) if kept else np.empty(0, np.int64)
    ascending = np.sort(chosen)
    order = np.searchsorted(ascending, chosen).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return records.take(ascending), Partition(order, offsets)


def _make_keys(records: Records) -> NDArray[np.void]:
    """Return one opaque value a record, equal where records are."""
    labels = records.labels.codes
    persons = np.zeros(len(labels), np.int64) if records.persons is None else records.persons
    parts = [labels.astype("<i8")[:, None].view(np.uint8), persons[:, None].view(np.uint8)]
    if records.targets is not None:
        parts.append(_to_bytes(records.targets))
    features = records.features
    if isinstance(features, Table):
        for column in features.columns.values():
            values = column.values if isinstance(column, Numeric) else column.codes
            parts.append(_to_bytes(values.astype(np.float64)[:, None]))
    else:
        parts.append(_to_bytes(features.reshape(len(labels), -1)))
    rows = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return rows.view(np.dtype((np.void, rows.shape[1])))[:, 0]


def _to_bytes(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return rows of bytes: one form of NaN, and of zero."""
    if values.dtype.kind == "f":
        numbers = values.astype(np.float64) + 0.0
        values = np.where(np.isnan(numbers), np.nan, numbers)
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
