import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.config import PartitionSection
from fedtrain.data.partition import (
    MAX_DRAWS,
    Partition,
    partition_natural,
    partition_persons,
    partition_records,
)
from fedtrain.data.persons import number_persons
from fedtrain.errors import DataError

LABELS = np.repeat(np.arange(10), 600)


def deal(scheme: str, sites: int = 50, seed: int = 0, **options: float) -> Partition:
    section = PartitionSection(scheme=scheme, sites=sites, **options)
    return partition_records(LABELS, section, generator=np.random.default_rng(seed))


def deal_persons(
    persons: np.ndarray, scheme: str, sites: int = 50, seed: int = 0, **options: float
) -> Partition:
    section = PartitionSection(scheme=scheme, sites=sites, **options)
    labels = LABELS[: len(persons)] if len(persons) < len(LABELS) else LABELS
    generator = np.random.default_rng(seed)
    return partition_persons(labels, persons, section=section, generator=generator)


def compute_label_skew(partition: Partition) -> float:
    """Mean total variation distance of a site's labels from the uniform distribution."""
    distances = []
    for site in range(len(partition)):
        counts = np.bincount(LABELS[partition.get_indices(site)], minlength=10)
        distances.append(np.abs(counts / counts.sum() - 0.1).sum() / 2)
    return float(np.mean(distances))


@given(
    scheme=st.sampled_from(["iid", "dirichlet", "shards", "quantity"]),
    sites=st.integers(1, 60),
    seed=st.integers(0, 2**32),
)
def test_partition_deals_every_record_exactly_once(scheme, sites, seed):
    partition = deal(scheme, sites, seed, alpha=1.0)
    assert np.array_equal(np.sort(partition.order), np.arange(len(LABELS)))
    assert partition.offsets[0] == 0
    assert partition.offsets[-1] == len(LABELS)
    assert len(partition) == sites
    assert partition.count_records().min() >= 1


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "shards", "quantity"])
def test_partition_follows_its_generator(scheme):
    assert np.array_equal(deal(scheme, seed=1).order, deal(scheme, seed=1).order)
    assert not np.array_equal(deal(scheme, seed=1).order, deal(scheme, seed=2).order)


def test_iid_sizes_differ_by_at_most_one():
    sizes = deal("iid", sites=37).count_records()
    assert sizes.max() - sizes.min() == 1


def test_dirichlet_skew_falls_with_alpha():
    skews = [compute_label_skew(deal("dirichlet", alpha=alpha)) for alpha in (0.1, 1.0, 100.0)]
    assert skews[0] > 0.55
    assert 0.2 < skews[1] < 0.45
    assert skews[2] < 0.1  # iid itself has about 0.1 at 120 records a site


def test_dirichlet_keeps_the_minimum_by_drawing_again():
    assert deal("dirichlet", sites=20, alpha=0.2, min_records=60).count_records().min() >= 60


def test_dirichlet_gives_up_after_a_bound():
    with pytest.raises(DataError, match=rf"alpha = 0\.01 .* {MAX_DRAWS} draws; raise alpha"):
        deal("dirichlet", sites=100, alpha=0.01, min_records=20)


@given(sites=st.integers(5, 100), shards=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_shards_leave_few_labels_at_a_site(sites, shards, seed):
    partition = deal("shards", sites, seed, shards_per_site=shards)
    per_shard = int(np.ceil(len(LABELS) / (sites * shards) / 600)) + 1  # labels a shard can touch
    for site in range(sites):
        assert len(np.unique(LABELS[partition.get_indices(site)])) <= shards * per_shard


def test_shards_of_mcmahan_give_two_labels_a_site():
    partition = deal("shards", sites=50, shards_per_site=2)  # 100 shards cut no class
    kinds = [len(np.unique(LABELS[partition.get_indices(site)])) for site in range(50)]
    assert max(kinds) == 2
    assert partition.count_records().tolist() == [120] * 50


def test_quantity_skew_falls_with_alpha_and_keeps_labels_even():
    skewed, even = deal("quantity", alpha=0.3), deal("quantity", alpha=1000.0)
    assert skewed.count_records().std() > 5 * even.count_records().std()
    largest = int(np.argmax(skewed.count_records()))
    shares = np.bincount(LABELS[skewed.get_indices(largest)]) / skewed.count_records()[largest]
    assert np.abs(shares - 0.1).max() < 0.06


def test_quantity_gives_every_site_the_minimum():
    sizes = deal("quantity", sites=200, alpha=0.05, min_records=10).count_records()
    assert sizes.min() == 10


def test_natural_keeps_the_order_of_the_source():
    partition = partition_natural(np.array([1, 0, 1, 0]), 3)
    assert [partition.get_indices(site).tolist() for site in range(3)] == [[1, 3], [0, 2], []]
    assert partition.compute_sites().tolist() == [1, 0, 1, 0]


def test_too_few_records_are_refused_with_a_cure():
    with pytest.raises(DataError, match=r"sites = 50 .* 10000 records.*lower partition.sites"):
        deal("iid", min_records=200)


def test_more_shards_than_records_are_refused():
    with pytest.raises(DataError, match="more shards than there are records"):
        deal("shards", sites=1000, shards_per_site=7)


SCHEMES = ["iid", "dirichlet", "shards", "quantity"]


@given(scheme=st.sampled_from(SCHEMES), sites=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_person_is_dealt_to_one_site_with_all_records(scheme, sites, seed):
    persons = number_persons(np.random.default_rng(seed).integers(0, 500, len(LABELS)))
    partition = deal_persons(persons, scheme, sites, seed, alpha=1.0)
    assert np.array_equal(np.sort(partition.order), np.arange(len(LABELS)))
    pairs = np.unique(np.stack([persons, partition.compute_sites()]), axis=1)
    assert pairs.shape[1] == persons.max() + 1
    assert partition.offsets[-1] == len(LABELS)
    assert partition.count_records().min() >= 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_persons_of_one_record_are_dealt_as_records_are(scheme):
    by_person = deal_persons(np.arange(len(LABELS)), scheme, seed=3)
    assert np.array_equal(by_person.order, deal(scheme, seed=3).order)
    assert np.array_equal(by_person.offsets, deal(scheme, seed=3).offsets)


def test_records_dealt_one_by_one_would_part_a_person():
    persons = np.repeat(np.arange(600), 10)
    assert len(np.unique(np.stack([persons, deal("iid").compute_sites()]), axis=1).T) > 600


def test_persons_dealt_iid_are_as_many_at_each_site():
    persons = np.sort(np.random.default_rng(0).integers(0, 100, len(LABELS)))
    partition = deal_persons(persons, "iid", sites=20)
    counts = [len(np.unique(persons[partition.get_indices(site)])) for site in range(20)]
    assert counts == [5] * 20


def test_too_few_persons_are_refused_with_a_cure():
    with pytest.raises(DataError, match=r"^persons are dealt whole .* lower partition.sites"):
        deal_persons(np.repeat(np.arange(60), 100), "iid", sites=61)
