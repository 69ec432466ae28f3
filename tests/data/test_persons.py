import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.data.persons import (
    compute_person_labels,
    number_persons,
    read_persons,
    verify_one_site,
)
from fedtrain.errors import DataError

names = st.lists(st.text(min_size=1, max_size=2) | st.sampled_from("ab"), max_size=30)


@given(names=names)
def test_persons_are_numbered_by_first_appearance(names):
    numbers = number_persons(np.array(names, dtype=str)).tolist()
    seen = list(dict.fromkeys(np.array(names, dtype=str).tolist()))
    assert numbers == [seen.index(name) for name in np.array(names, dtype=str).tolist()]


def test_persons_of_one_record_each_are_numbered_in_order():
    assert number_persons(np.array([70, 5, 33, 6])).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "values",
    [
        [9, 4, 9],
        [9.0, 4.0, 9.0],
        [" b", "a", "b "],
        np.array(["b", "a", "b"], dtype=object),
        np.array([9, 4, 9], dtype=np.uint8),
    ],
)
def test_names_are_whole_numbers_or_texts(values):
    assert read_persons(np.asarray(values), 3, "d").tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "values",
    [
        [1.0, np.nan],
        [1.0, np.inf],
        [1.0, 1.5],
        ["a", ""],
        ["a", "  "],
        ["a", np.nan],  # a text to numpy
        ["a", None],
        [True, False],
        [b"a", b"b"],
    ],
)
def test_record_without_a_person_is_refused(values):
    with pytest.raises(DataError, match=r"^d: persons must be .*without a gap; fill it or remove"):
        read_persons(np.asarray(values), 2, "d")


@pytest.mark.parametrize("values", [[1], [[1, 2]], 1])
def test_persons_that_are_not_one_a_record_are_refused(values):
    with pytest.raises(DataError, match="there are 2 records; give one person a record"):
        read_persons(np.asarray(values), 2, "d")


def test_label_of_a_person_is_the_most_frequent_and_of_several_the_lowest():
    persons = np.array([0, 0, 0, 1, 1, 2])
    assert compute_person_labels(np.array([1, 2, 2, 3, 1, 0]), persons).tolist() == [2, 1, 0]
    assert compute_person_labels(np.array([], int), np.array([], int)).tolist() == []


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_label_of_a_person_of_one_record_is_its_own(labels):
    assert compute_person_labels(np.array(labels), np.arange(len(labels))).tolist() == labels


def test_person_at_two_sites_is_refused_with_a_cure():
    verify_one_site(np.array([0, 1, 0, 2]), np.array([1, 0, 1, 0]))
    with pytest.raises(DataError, match=r"^2 of the persons are at more than one .* keep a person"):
        verify_one_site(np.array([0, 1, 0, 2, 1]), np.array([1, 0, 2, 0, 1]))
