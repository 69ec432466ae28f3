import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.data.persons import number_persons
from fedtrain.data.splits import SplitIndices, split_persons, split_records

site_of_persons = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1).map(
    lambda rows: (number_persons(np.array([p for p, _ in rows])), np.array([y for _, y in rows]))
)
labels_of_a_site = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)


def split(labels: np.ndarray, seed: int = 0, validation: float = 0.1, test: float = 0.2):
    return split_records(
        labels,
        np.random.default_rng(seed),
        validation_fraction=validation,
        test_fraction=test,
    )


def split_by_person(labels: np.ndarray, persons: np.ndarray, seed: int = 0) -> SplitIndices:
    generator = np.random.default_rng(seed)
    return split_persons(
        labels, persons, generator=generator, validation_fraction=0.1, test_fraction=0.2
    )


def join(splits: SplitIndices) -> list[int]:
    return sorted([*splits.train, *splits.validation, *splits.test])


@given(labels=labels_of_a_site, seed=st.integers(0, 99))
def test_split_has_every_record_exactly_once(labels, seed):
    assert join(split(labels, seed)) == list(range(len(labels)))


@given(
    labels=labels_of_a_site, fractions=st.tuples(st.floats(0, 0.5), st.floats(0, 0.49)).map(sorted)
)
def test_split_trains_on_every_class(labels, fractions):
    train = split(labels, validation=fractions[0], test=fractions[1]).train
    assert set(labels[train]) == set(labels)


@given(labels=labels_of_a_site)
def test_split_is_stratified_to_one_record(labels):
    test = labels[split(labels).test]
    for label in set(labels):
        count = int((labels == label).sum())
        assert min(int(0.2 * count), count - 1) <= (test == label).sum() <= np.ceil(0.2 * count)


def test_split_sizes_are_the_rounded_fractions():
    splits = split(np.arange(100) % 7)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [70, 10, 20]


def test_split_of_small_classes_still_fills_the_test_set():
    splits = split(np.repeat(np.arange(10), 4))  # 0.8 of a record a class
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [28, 4, 8]


def test_split_follows_its_generator():
    labels = np.arange(60) % 3
    assert split(labels, 1).test.tolist() == split(labels, 1).test.tolist()
    assert split(labels, 1).test.tolist() != split(labels, 2).test.tolist()


def test_split_without_fractions_trains_on_everything():
    splits = split(np.array([0, 0, 1]), validation=0, test=0)
    assert splits.train.tolist() == [0, 1, 2]
    assert len(splits.validation) == len(splits.test) == 0


@given(site=site_of_persons, seed=st.integers(0, 99))
def test_split_of_persons_has_each_record_once_and_each_person_in_one_split(site, seed):
    persons, labels = site
    splits = split_by_person(labels, persons, seed)
    assert join(splits) == list(range(len(labels)))
    owners = [set(persons[part]) for part in (splits.train, splits.validation, splits.test)]
    assert sum(len(owner) for owner in owners) == len(set(persons))
    assert owners[0]


@given(labels=labels_of_a_site, seed=st.integers(0, 99))
def test_split_of_persons_with_one_record_is_the_split_of_records(labels, seed):
    by_person, by_record = (
        split_by_person(labels, np.arange(len(labels)), seed),
        split(labels, seed),
    )
    for part in ("train", "validation", "test"):
        assert np.array_equal(getattr(by_person, part), getattr(by_record, part))


def test_split_of_records_would_part_a_person():
    persons, labels = np.repeat(np.arange(20), 5), np.repeat([0, 1], 50)
    assert set(persons[split(labels).train]) & set(persons[split(labels).test])


def test_split_of_one_person_trains_on_them():
    splits = split_by_person(np.array([0, 1, 1]), np.zeros(3, int))
    assert splits.train.tolist() == [0, 1, 2]


def test_split_of_persons_takes_shares_of_persons_of_each_label():
    persons = np.repeat(np.arange(100), np.arange(100) % 5 + 1)
    test = split_by_person(persons % 2, persons).test
    assert np.bincount(np.unique(persons[test]) % 2).tolist() == [10, 10]
