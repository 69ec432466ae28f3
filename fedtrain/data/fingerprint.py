"""A digest of a data set: equal for equal records and partition, and telling nothing else."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.data.partition import Partition
from fedtrain.data.records import Features, Records


def compute_fingerprint(records: Records, partition: Partition) -> str:
    """Return SHA-256 (hex) over dtype, shape and bytes of all records and of the partition.

    A digest identifies data to someone who has it; it is not meant to hide a data set so small
    that it can be guessed. Of persons it has which records belong together, and no name.
    """
    digest = hashlib.sha256()
    for name, array in _iterate_arrays(records, partition):
        contiguous = np.ascontiguousarray(array)
        header = f"{name}|{contiguous.dtype.str}|{contiguous.shape}|"
        digest.update(len(header).to_bytes(4, "big") + header.encode())
        digest.update(contiguous.data.cast("B") if contiguous.size else b"")
    return digest.hexdigest()


def _iterate_arrays(records: Records, partition: Partition) -> Iterator[tuple[str, NDArray[Any]]]:
    yield from _iterate_features("features", records.features)
    yield from _iterate_category("labels", records.labels)
    if records.targets is not None:
        yield "targets", records.targets
    if records.central is not None:
        yield from _iterate_features("central features", records.central[0])
        yield from _iterate_category("central labels", records.central[1])
    if records.persons is not None:
        yield "persons", records.persons
    yield "order", partition.order
    yield "offsets", partition.offsets


def _iterate_features(name: str, features: Features) -> Iterator[tuple[str, NDArray[Any]]]:
    if not isinstance(features, Table):
        yield name, features
        return
    for column_name, column in features.columns.items():
        if isinstance(column, Numeric):
            yield f"{name} {column_name!r}", column.values
        else:
            yield from _iterate_category(f"{name} {column_name!r}", column)


def _iterate_category(name: str, category: Category) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"{name} {category.names!r}", category.codes
