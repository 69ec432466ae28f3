import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.data.columns import Category, Numeric, Table
from fedtrain.data.statistics import Statistics, compute_statistics, sum_statistics
from fedtrain.errors import DataError, PeerError

numbers = st.one_of(st.just(np.nan), st.floats(-1e3, 1e3))
rows = st.lists(
    st.tuples(numbers, st.sampled_from([-1, 0, 1]), st.integers(0, 2)), min_size=2, max_size=40
)


def build(rows: list[tuple[float, int, int]]) -> tuple[Table, Category]:
    age, sex, label = zip(*rows, strict=True)
    table = Table(
        {
            "age": Numeric(np.array(age, dtype=np.float64)),
            "sex": Category(np.array(sex, dtype=np.int32), ("f", "m")),
        },
        len(rows),
    )
    return table, Category(np.array(label, dtype=np.int32), ("0", "1", "2"))


@given(rows=rows, data=st.data())
def test_statistics_of_parts_add_up_to_the_whole(rows, data):
    cut = data.draw(st.integers(1, len(rows) - 1))
    total = sum_statistics(compute_statistics(*build(part)) for part in (rows[:cut], rows[cut:]))
    whole = compute_statistics(*build(rows))
    assert (total.records, total.categories, total.missing, total.labels) == (
        whole.records,
        whole.categories,
        whole.missing,
        whole.labels,
    )
    if "age" in whole.numeric:
        sums, expected = total.numeric["age"], whole.numeric["age"]
        assert sums.count == expected.count
        assert sums.total == pytest.approx(expected.total, abs=1e-6)
        assert sums.squares == pytest.approx(expected.squares, rel=1e-9)


@given(rows=rows)
def test_statistics_survive_json(rows):
    statistics = compute_statistics(*build(rows))
    assert Statistics.from_json(json.loads(json.dumps(statistics.to_json()))) == statistics


@pytest.mark.parametrize(
    "tree", [{}, {"input_shape": None, "records": "x"}, {"input_shape": None, "records": 1}]
)
def test_statistics_of_another_form_are_refused(tree):
    with pytest.raises(PeerError, match="statistics cannot be read"):
        Statistics.from_json(tree)


def test_images_are_summed_by_channel():
    images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    labels = Category(np.zeros(2, dtype=np.int32), ("0",))
    mean, scale = compute_statistics(images, labels).numeric["x"].compute_mean_and_scale()
    assert mean == pytest.approx(images.mean(axis=(0, 2, 3)))
    assert scale == pytest.approx(images.std(axis=(0, 2, 3)))


def test_constant_feature_keeps_its_scale():
    values = np.full((50, 2), 1e6 / 3)
    labels = Category(np.zeros(50, dtype=np.int32), ("0",))
    mean, scale = compute_statistics(values, labels).numeric["x"].compute_mean_and_scale()
    assert mean == pytest.approx([1e6 / 3] * 2)
    assert scale.tolist() == [1.0, 1.0]


def test_column_that_a_site_lacks_is_missing_in_all_of_its_rows():
    table, labels = build([(1.0, 0, 0), (2.0, 1, 1)])
    without = Table({"age": table.columns["age"]}, 2)
    total = compute_statistics(table, labels) + compute_statistics(without, labels)
    assert total.missing == {"age": 0, "sex": 2}


def test_sites_that_disagree_on_a_kind_are_refused():
    table, labels = build([(1.0, 0, 0)])
    other = Table({"age": table.columns["sex"], "sex": table.columns["sex"]}, 1)
    with pytest.raises(DataError, match="'age' is numeric at one site and text at another"):
        compute_statistics(table, labels) + compute_statistics(other, labels)


def test_no_site_at_all_is_refused():
    with pytest.raises(DataError, match="no site reported statistics"):
        sum_statistics([])
