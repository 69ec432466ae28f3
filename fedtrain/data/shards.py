"""Every site's records that this process can see, opened once and prepared site by site.

Shapes: n records of a site, d features.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedtrain.config import Config
from fedtrain.data.checks import (
    leave_out_unusable,
    verify_columns,
    verify_persons,
    verify_records,
    warn_of_poor_sites,
)
from fedtrain.data.coins import compute_person_coins, compute_record_coins
from fedtrain.data.columns import Category, Table
from fedtrain.data.duplicates import drop_duplicates
from fedtrain.data.fingerprint import compute_fingerprint
from fedtrain.data.left_out import count_dealt, leave_out_sites
from fedtrain.data.partition import (
    Partition,
    partition_natural,
    partition_persons,
    partition_records,
)
from fedtrain.data.persons import number_persons, verify_one_site
from fedtrain.data.preparation import Preparation, verify_public
from fedtrain.data.public import PublicConstants, apply_config
from fedtrain.data.records import Features, Records, take_features
from fedtrain.data.requirements import verify_preparation
from fedtrain.data.series import split_in_time
from fedtrain.data.sources import load_records
from fedtrain.data.splits import (
    SplitIndices,
    split_by_coins,
    split_fold,
    split_persons,
    split_records,
    turn_coins,
)
from fedtrain.data.statistics import Statistics, compute_statistics
from fedtrain.data.targets import verify_targets
from fedtrain.errors import ConfigError, DataError
from fedtrain.seeds import derive_seed, make_numpy_generator

CACHE_BYTES: Final = 512 * 2**20


@dataclass(frozen=True)
class Split:
    """Prepared records.

    Attributes:
        features: `(n, *input_shape)` float32, for text int64 ids; C-contiguous.
        labels: int64 `(n,)`; of a task with targets float32 `(n, k)`.
        persons: int64 `(n,)`, the person of each record: 0..p-1 in order of first appearance in
            this split, every number in use. None where the source does not tell persons, which
            `privacy.unit = "person"` refuses when data is opened.
        groups: int32 `(n,)`, the group of each record by its place in `data.categories`, -1 where
            it has none of them; None without `data.group_column`.
    """

    features: NDArray[Any]
    labels: NDArray[Any]
    persons: NDArray[np.int64] | None = None
    groups: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Shard:
    """One site's records, prepared; a split may be empty, train where records are protected."""

    train: Split
    validation: Split
    test: Split


class Shards:
    """The sites' records; the raw data is held once, sites are indices into it.

    Guarantees:
        Where records or persons are protected, one unit more or less at a site changes that unit
        in one split and nothing else: see `splits.split_by_coins`. Neighbours are a site's records
        as they are dealt to it: every scheme but `natural` deals by position, and stands for sites
        that came by their records somehow.

    Attributes:
        site_names: Name of each site, by its index.
        public: What is known of the data without looking at a record.
    """

    def __init__(
        self, config: Config, records: Records, *, partition: Partition, site_names: tuple[str, ...]
    ) -> None:
        self.site_names = site_names
        self.public: PublicConstants = records.public
        self._config = config
        self._records = records
        self._partition = partition
        self._cache = _ShardCache(CACHE_BYTES)

    @classmethod
    def open(cls, config: Config, *, strict: bool = False, own: str | None = None) -> "Shards":
        """Read, check and partition the data that the config names.

        Args:
            config: The run's config.
            strict: Refuse what `from_records` would otherwise leave out or put up with. Only for
                who owns the data and alone sees the refusal; without protection it is always so.
            own: Name of the one site whose data all of it is; by default the config partitions it.

        Raises:
            ConfigError: A key is missing, or names what is not there, or persons are to be
                protected and the source does not tell them.
            DataError: The data cannot be read or used, a site has too few records, or a person is
                at two natural sites.

        Guarantees:
            Where the source tells persons, each is at one site of a simulation and in one split of
            it, with all of their records. A deployed site sees its own records alone and cannot
            tell whether a person is at others too; see `persons.verify_one_site`.
        """
        records = load_records(config, strict=strict or config.privacy.unit == "none")
        return cls.from_records(records, config, strict=strict, own=own)

    @classmethod
    def from_records(
        cls, records: Records, config: Config, *, strict: bool = False, own: str | None = None
    ) -> "Shards":
        """Check and partition records that are already in memory; see `open`.

        Guarantees:
            Where records, persons or sites are protected and unless `strict`, a natural site is not
            refused for the number of its records, nor for a value or label of one: a record that
            cannot be used is left out, which depends on that record alone. A coordinator that sees
            a refusal would learn of a record from it. What `load_records` cannot read at all is
            still refused: a damaged file, one without a row, an array of labels or persons that
            has a gap.
        """
        public = apply_config(records.public, config)
        verify_preparation(config, public)
        verify_targets(records.targets, config)
        records = replace(records, public=public)
        verify_columns(records)
        verify_persons(records, config)
        protected = config.privacy.unit != "none" and not strict
        if protected:
            records = leave_out_unusable(records, config)
        partition, site_names = _partition(records, config, own)
        left_out = config.partition.leave_out
        if left_out is not None and own is None:
            records, partition, site_names = leave_out_sites(
                records, partition, site_names, left_out=left_out
            )
        if config.data.drop_duplicates:
            records, partition = drop_duplicates(records, partition)
        least = 0 if protected else config.partition.min_records
        verify_records(records, partition, site_names, min_records=least)
        warn_of_poor_sites(records.labels, partition, site_names, config=config)
        return cls(config, records, partition=partition, site_names=site_names)

    def __len__(self) -> int:
        return len(self.site_names)

    def compute_statistics(self, site: int) -> Statistics:
        """Return the sums over the training records of a site.

        Raises:
            ConfigError: Records are protected, and sums of them would leave the site as they are.
        """
        if self._config.privacy.covers_records:
            raise ConfigError(
                f"privacy.unit = {self._config.privacy.unit!r} lets no sums over records leave a"
                " site; set data.bounds, data.categories and data.classes"
            )
        indices = self._partition.get_indices(site)
        train = indices[self._split(site).train]
        features = self._take(train)
        return compute_statistics(features, self._records.labels.take(train))

    def read_raw(self, site: int, part: Literal["all", "train"]) -> tuple[Features, Category]:
        """Return a site's records as they are: all, or those for training.

        Raises:
            ConfigError: Records are protected, and split only when they are prepared.
        """
        rows = self._partition.get_indices(site)
        if part == "train":
            if self._config.privacy.covers_records:
                raise ConfigError("protected records are split by coins, once they are prepared")
            rows = rows[self._split(site).train]
        return self._take(rows), self._records.labels.take(rows)

    def load(self, site: int, preparation: Preparation) -> Shard:
        """Return a site's prepared splits.

        The least recently used sites are forgotten beyond `CACHE_BYTES`.

        Raises:
            DataError: A label or value of this site is not what the preparation knows.
            PeerError: Something is protected, and the preparation is not the public one.
        """
        cached = self._cache.get(site, preparation)
        if cached is not None:
            return cached
        rows, features, labels, ends = self._arrange(site, preparation)
        splits = [
            Split(
                features[start:end],
                labels[start:end],
                self._number_persons(rows[start:end]),
                self._find_groups(rows[start:end]),
            )
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]
        if self._config.data.task == "anomaly":
            splits[0] = _keep_usual(splits[0])
        shard = Shard(*splits)
        self._cache.put(site, shard, size=features.nbytes + labels.nbytes)
        return shard

    def find_rows(self, site: int, preparation: Preparation) -> SplitIndices:
        """Return which record of the whole data each record of a site's splits is, in their order.

        An audit needs it, to know the same record again in a federation that was dealt anew.
        """
        rows, _, _, ends = self._arrange(site, preparation)
        return SplitIndices(*np.split(rows, ends[:-1]))

    def count_records(self) -> int:
        """Return the number of records of all sites together."""
        return len(self._records.labels)

    def load_central_test(self, preparation: Preparation) -> Split | None:
        """Return the prepared central test set, or None where the source has none."""
        if self._records.central is None:
            return None
        features, labels = self._records.central
        return Split(preparation.apply_features(features), preparation.apply_labels(labels))

    def compute_fingerprint(self) -> str:
        """Return SHA-256 (hex) over all records and the partition; see `fingerprint`."""
        return compute_fingerprint(self._records, self._partition)

    def _arrange(
        self, site: int, preparation: Preparation
    ) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any], list[int]]:
        """Return a site's prepared records in the order of its splits, and the splits' ends."""
        rows = self._partition.get_indices(site)
        if self._config.privacy.unit != "none":
            verify_public(preparation, self._config, self.public)
        if self._config.privacy.covers_records:
            features, labels = self._prepare(site, rows, preparation)
            split = self._split_by_unit(site, rows, features=features, labels=labels)
            order = np.concatenate(split.get_parts())
            if len(split.train) < len(order):
                rows, features, labels = rows[order], features[order], labels[order]
        else:
            split = self._split(site)
            rows = rows[np.concatenate(split.get_parts())]
            features, labels = self._prepare(site, rows, preparation)
        ends = np.cumsum([len(part) for part in split.get_parts()]).tolist()
        return rows, features, labels, ends

    def _prepare(
        self, site: int, rows: NDArray[np.int64], preparation: Preparation
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return prepared features and labels of records of a site."""
        try:
            features = preparation.apply_features(self._take(rows))
            targets = self._records.targets
            if targets is not None:
                return features, preparation.apply_targets(targets[rows])
            labels = preparation.apply_labels(self._records.labels.take(rows))
        except DataError as error:
            raise DataError(f"site {self.site_names[site]!r}: {error}") from error
        return features, labels

    def _split(self, site: int) -> SplitIndices:
        """Split a site's records; seeded by the site's name, so that no other site matters."""
        data = self._config.data
        indices = self._partition.get_indices(site)
        if data.task == "forecasting":
            return split_in_time(len(indices), self._config)
        labels, persons = self._records.labels.codes[indices], self._number_persons(indices)
        generator = make_numpy_generator(self._config.run.seed, "split", self.site_names[site])
        validation, test = data.validation_fraction, data.test_fraction
        if persons is None and data.folds is not None and data.fold is not None:
            return split_fold(
                labels, generator, folds=data.folds, fold=data.fold, validation_fraction=validation
            )
        if persons is None:
            return split_records(
                labels, generator, validation_fraction=validation, test_fraction=test
            )
        return split_persons(
            labels,
            persons,
            generator=generator,
            validation_fraction=validation,
            test_fraction=test,
            folds=data.folds,
            fold=data.fold,
        )

    def _split_by_unit(
        self,
        site: int,
        rows: NDArray[np.int64],
        *,
        features: NDArray[Any],
        labels: NDArray[Any],
    ) -> SplitIndices:
        """Split a site's prepared records by the coin of each, or of each one's person."""
        data, digests = self._config.data, self._records.person_digests
        test = data.test_fraction if data.folds is None else 1 / data.folds
        if not data.validation_fraction and not test:
            coins = np.zeros(len(rows))
        else:
            seed = derive_seed(self._config.run.seed, "split by unit", self.site_names[site])
            key = seed.to_bytes(8, "big")
            if digests is None and labels.ndim == 2:  # a record is its targets too
                features = np.concatenate([features.reshape(len(rows), -1), labels], axis=1)
                labels = np.zeros(len(rows), np.int64)
            if digests is None:
                coins = compute_record_coins(features, labels, key=key)
            else:
                coins = compute_person_coins(digests[rows], key=key)
        if data.folds is not None and data.fold is not None:
            coins = turn_coins(coins, folds=data.folds, fold=data.fold)
        return split_by_coins(
            coins, validation_fraction=data.validation_fraction, test_fraction=test
        )

    def _number_persons(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the person of each record among `indices`, numbered anew; None where unknown."""
        persons = self._records.persons
        return None if persons is None else number_persons(persons[indices])

    def _find_groups(self, indices: NDArray[np.int64]) -> NDArray[np.int32] | None:
        name, features = self._config.data.group_column, self._records.features
        if name is None:
            return None
        column = features.columns.get(name) if isinstance(features, Table) else None
        if not isinstance(column, Category):
            raise ConfigError(
                f"data.group_column = {name!r} is no feature column of categories here; it can be"
                " neither label, site nor person"
            )
        return column.take(indices).recode(self._config.data.categories[name])

    def _take(self, indices: NDArray[np.int64]) -> Features:
        features = self._records.features
        columns = self.public.columns
        if isinstance(features, Table) and columns is not None:
            features = Table({name: features.columns[name] for name in columns}, len(features))
        return take_features(features, indices)


class _ShardCache:
    """Prepared shards of one preparation, the least recently used forgotten first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._preparation: Preparation | None = None
        self._shards: OrderedDict[int, tuple[Shard, int]] = OrderedDict()

    def get(self, site: int, preparation: Preparation) -> Shard | None:
        if preparation is not self._preparation and preparation != self._preparation:
            self._shards.clear()
            self._size = 0
        self._preparation = preparation
        if site not in self._shards:
            return None
        self._shards.move_to_end(site)
        return self._shards[site][0]

    def put(self, site: int, shard: Shard, *, size: int) -> None:
        self._shards[site] = shard, size
        self._size += size
        while self._size > self._capacity and len(self._shards) > 1:
            _, (_, forgotten) = self._shards.popitem(last=False)
            self._size -= forgotten


def take_group(split: Split, group: int) -> Split:
    """Return the records of one group, for evaluation: without their persons."""
    if split.groups is None:
        raise ValueError("records have groups where data.group_column is set")
    kept = np.flatnonzero(split.groups == group)
    return Split(split.features[kept], split.labels[kept])


def _keep_usual(split: Split) -> Split:
    """Return the records of the first class, which alone an autoencoder is trained on."""
    kept = np.flatnonzero(split.labels == 0)
    persons = None if split.persons is None else number_persons(split.persons[kept])
    return Split(split.features[kept], split.labels[kept], persons)


def _partition(
    records: Records, config: Config, own: str | None
) -> tuple[Partition, tuple[str, ...]]:
    section = config.partition
    section = section.model_copy(update={"sites": count_dealt(section)})
    if own is not None:
        return partition_natural(np.zeros(len(records.labels), np.int64), 1), (own,)
    if section.scheme == "natural":
        if records.sites is None:
            raise ConfigError(
                f"partition.scheme = 'natural': data.source = {config.data.source!r} says no site"
                " here; name data.site_column, give a folder of files, or choose another scheme"
            )
        names = records.sites.names
        if section.sites not in (None, len(names)):
            raise ConfigError(
                f"partition.sites = {config.partition.sites} but the data has {len(names)} natural"
                " sites; remove partition.sites"
            )
        if records.persons is not None:
            verify_one_site(records.persons, records.sites.codes)
        return partition_natural(records.sites.codes, len(names)), names
    generator, labels = make_numpy_generator(config.run.seed, "partition"), records.labels.codes
    if records.persons is None:
        partition = partition_records(labels, section, generator=generator)
    else:
        partition = partition_persons(labels, records.persons, section=section, generator=generator)
    width = max(2, len(str(len(partition) - 1)))
    return partition, tuple(f"site-{site:0{width}d}" for site in range(len(partition)))
