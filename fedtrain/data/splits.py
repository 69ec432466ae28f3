"""Train, validation and test records of one site: stratified by label, or by each unit's own coin.

Stratified splits have the shares that were asked for, but one record less moves others from split
to split (of 300 records a median of 77): they are for runs that protect no record. Where records or
persons are protected, `split_by_coins` is what the guarantee rests on.

Shapes: n records of one site, of p persons.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.persons import compute_person_labels


@dataclass(frozen=True)
class SplitIndices:
    """Positions of a site's records in each split; together every position exactly once.

    Attributes:
        train: int64, ascending; stratified, it is never empty where the site has a record.
        validation: int64, ascending.
        test: int64, ascending.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def get_parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return train, validation and test, in that order."""
        return self.train, self.validation, self.test


def split_records(
    labels: NDArray[np.integer],
    generator: np.random.Generator,
    *,
    validation_fraction: float,
    test_fraction: float,
) -> SplitIndices:
    """Split a site's records, each class in the same shares as far as whole records allow.

    Args:
        labels: Class of each record `(n,)`.
        generator: Seeded for this site alone.
        validation_fraction: Share wanted for validation.
        test_fraction: Share wanted for test.

    Returns:
        The splits. A split takes each class's share rounded down or up, so that it has
        `round(n * fraction)` records in all. But every class keeps a training record (one that
        occurs once is never tested), which may leave a split with fewer.
    """
    if not validation_fraction and not test_fraction:
        nothing = np.empty(0, np.int64)
        return SplitIndices(np.arange(len(labels)), nothing, nothing)
    counts = np.bincount(labels)
    spare = np.maximum(counts - 1, 0)  # what each class can give away
    test = _allot(counts, spare, test_fraction)
    validation = _allot(counts, spare - test, validation_fraction)
    order = np.lexsort((generator.random(len(labels)), labels))  # by class, shuffled within
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(labels)) - np.repeat(starts, counts)
    in_test = rank < np.repeat(test, counts)
    in_train = rank >= np.repeat(test + validation, counts)
    return SplitIndices(
        train=np.sort(order[in_train]),
        validation=np.sort(order[~in_train & ~in_test]),
        test=np.sort(order[in_test]),
    )


def split_fold(
    labels: NDArray[np.integer],
    generator: np.random.Generator,
    *,
    folds: int,
    fold: int,
    validation_fraction: float,
) -> SplitIndices:
    """Split a site's records for one fold of a cross-validation.

    Args:
        labels: Class of each record, or person, `(n,)`.
        generator: Seeded for this site alone, and the same for every fold.
        folds: Number of test sets.
        fold: Which of them, from 0.
        validation_fraction: Share of the others wanted for validation.

    Returns:
        The splits. Over all folds each record is tested on once; each class is dealt to the test
        sets in equal numbers, one more or less.
    """
    order = np.lexsort((generator.random(len(labels)), labels))
    dealt = np.empty(len(labels), np.int64)
    dealt[order] = np.arange(len(labels)) % folds
    rest = np.flatnonzero(dealt != fold)
    inner = split_records(
        labels[rest], generator, validation_fraction=validation_fraction, test_fraction=0.0
    )
    return SplitIndices(rest[inner.train], rest[inner.validation], np.flatnonzero(dealt == fold))


def split_persons(
    labels: NDArray[np.integer],
    persons: NDArray[np.int64],
    *,
    generator: np.random.Generator,
    validation_fraction: float,
    test_fraction: float,
    folds: int | None = None,
    fold: int | None = None,
) -> SplitIndices:
    """Split a site's persons, each with all of their records; see `split_records`.

    Args:
        labels: Class of each record `(n,)`.
        persons: Person of each record, 0..p-1 `(n,)`.
        generator: Seeded for this site alone.
        validation_fraction: Share of the persons wanted for validation.
        test_fraction: Share of the persons wanted for test.
        folds: Of a cross-validation, in place of the test fraction; see `split_fold`.
        fold: Which of them.

    Returns:
        What `split_records` makes of persons, each with their most frequent label: shares are of
        persons, and a class that is no one's most frequent may lack a training record.

    Guarantees:
        A person's records are in exactly one split. One record a person, in order, gives what
        `split_records` gives.
    """
    own = compute_person_labels(labels, persons)
    if folds is not None and fold is not None:
        chosen = split_fold(
            own, generator, folds=folds, fold=fold, validation_fraction=validation_fraction
        )
    else:
        chosen = split_records(
            own,
            generator,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
        )
    parts = np.zeros(len(chosen.train) + len(chosen.validation) + len(chosen.test), np.int8)
    parts[chosen.validation] = 1
    parts[chosen.test] = 2
    train, validation, test = (np.flatnonzero(parts[persons] == part) for part in range(3))
    return SplitIndices(train, validation, test)


def turn_coins(coins: NDArray[np.float64], *, folds: int, fold: int) -> NDArray[np.float64]:
    """Return coins of which the fold's come first: those below 1 / folds are its test set."""
    return (coins - fold / folds) % 1.0


def split_by_coins(
    coins: NDArray[np.float64], *, validation_fraction: float, test_fraction: float
) -> SplitIndices:
    """Put each record where its coin falls; see `fedtrain.data.coins`.

    Args:
        coins: In [0, 1), one a record, equal for what must stay together `(n,)`.
        validation_fraction: Chance of validation.
        test_fraction: Chance of test.

    Returns:
        Splits of about those shares of the units; any of them may be empty, train too.

    Guarantees:
        A record's split depends on its own coin and the fractions alone. So, with the coins of
        `fedtrain.data.coins`, each split of a site without one record (or one person) is that
        split of the whole site without it, as a multiset of records; and a mechanism on the
        training split is as private for the site's records as it is for the split's.
    """
    in_test = coins < test_fraction
    in_train = coins >= test_fraction + validation_fraction
    return SplitIndices(
        train=np.flatnonzero(in_train),
        validation=np.flatnonzero(~in_train & ~in_test),
        test=np.flatnonzero(in_test),
    )


def _allot(
    counts: NDArray[np.int64], spare: NDArray[np.int64], fraction: float
) -> NDArray[np.int64]:
    """Return how many records of each class a split takes: largest remainders, within `spare`."""
    quota = counts * fraction
    allotted: NDArray[np.int64] = np.minimum(np.floor(quota).astype(np.int64), spare)
    wanted = round(float(counts.sum()) * fraction) - int(allotted.sum())
    open_ = np.flatnonzero((allotted < spare) & (allotted < quota))
    nearest = np.argsort((allotted - quota)[open_], kind="stable")[: max(wanted, 0)]
    allotted[open_[nearest]] += 1
    return allotted
