"""Persons from the file to the splits, on a table in which most persons have several rows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain.config import Config, build_config
from fedtrain.data.preparation import fit_preparation
from fedtrain.data.shards import Shard, Shards
from fedtrain.data.sources import load_records
from fedtrain.errors import ConfigError, DataError

PRIVATE = {
    "privacy": {"unit": "person", "noise_multiplier": 1.0},
    "training": {"sampling": "poisson", "sample_rate": 0.1, "expected_batch_size": 8.0},
}
VISITS = {"source": "csv", "label": "ill", "bounds": {"age": (0, 200)}, "classes": ("0", "1")}
SECRET = "patient-"
MakeConfig = Callable[..., Config]


def write_visits(path: Path, *, persons: int = 120, most: int = 6, sites: int = 4) -> list[str]:
    """Write persons with 1 to `most` visits each; the age tells visits apart."""
    generator = np.random.default_rng(0)
    owners = np.repeat(np.arange(persons), generator.integers(1, most + 1, persons))
    generator.shuffle(owners)
    rows = [
        f"{SECRET}{owner},{age / 8},h{owner % sites},{(owner + age) % 3 % 2}"
        for age, owner in enumerate(owners)
    ]
    path.write_text("\n".join(["patient,age,hospital,ill", *rows]) + "\n")
    return [f"{SECRET}{owner}" for owner in owners]


@pytest.fixture
def make_config(tmp_path) -> MakeConfig:
    path = tmp_path / "visits.csv"
    write_visits(path)

    def build(*, person: bool = True, private: bool = False, seed: int = 0, **partition: Any):
        column = {"person_column": "patient"} if person else {"columns": ("age",)}
        return build_config(
            {
                "run": {"seed": seed},
                "data": {**VISITS, "path": str(path), "site_column": "hospital", **column},
                "partition": {"scheme": "natural"} | partition,
                "secure_aggregation": {"mode": "off"},
            }
            | (PRIVATE if private else {})
        )

    return build


def load_all(config: Config) -> list[Shard]:
    shards = Shards.open(config)
    preparation = fit_preparation([], config, shards.public)
    return [shards.load(site, preparation) for site in range(len(shards))]


def list_splits(shard: Shard) -> list[Any]:
    return [shard.train, shard.validation, shard.test]


@pytest.mark.parametrize("scheme", ["natural", "iid", "dirichlet", "shards", "quantity"])
def test_person_is_in_one_split_of_one_site(make_config, tmp_path, scheme):
    owners = write_visits(tmp_path / "visits.csv")
    options = {} if scheme == "natural" else {"scheme": scheme, "sites": 5}
    places: dict[str, set[tuple[int, int]]] = {}
    for site, shard in enumerate(load_all(make_config(private=True, **options))):
        for part, split in enumerate(list_splits(shard)):
            for age in (split.features[:, 0] * 1600).round().astype(int):
                places.setdefault(owners[age], set()).add((site, part))
    assert len(places) == 120
    assert {len(place) for place in places.values()} == {1}


def test_persons_of_a_split_are_numbered_without_a_gap_and_group_its_records(make_config, tmp_path):
    owners = write_visits(tmp_path / "visits.csv")
    for shard in load_all(make_config(private=True)):
        for split in list_splits(shard):
            names = [owners[age] for age in (split.features[:, 0] * 1600).round().astype(int)]
            order = list(dict.fromkeys(names))
            assert split.persons.tolist() == [order.index(name) for name in names]
            assert split.persons.dtype == np.int64


def test_one_record_a_person_gives_the_run_without_persons(make_config, tmp_path):
    write_visits(tmp_path / "visits.csv", most=1)
    for scheme in ("iid", "dirichlet", "shards", "quantity"):
        pair = [load_all(make_config(person=p, scheme=scheme, sites=5)) for p in (True, False)]
        for with_persons, without in zip(*pair, strict=True):
            for a, b in zip(list_splits(with_persons), list_splits(without), strict=True):
                assert np.array_equal(a.features, b.features)
                assert np.array_equal(a.labels, b.labels)
                assert a.persons.tolist() == list(range(len(b)))
                assert b.persons is None


def test_duplicate_rows_are_records_of_their_person(make_config, tmp_path):
    path = tmp_path / "visits.csv"
    header, first, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *[first] * 7, *rows]) + "\n")
    splits = [split for shard in load_all(make_config()) for split in list_splits(shard)]
    holder = max(splits, key=lambda split: int((split.features == 0).sum()))
    assert (holder.features == 0).sum() == 7
    assert len(set(holder.persons[(holder.features == 0)[:, 0]])) == 1


def test_only_person_at_a_site_is_trained_on(make_config, tmp_path):
    write_visits(tmp_path / "visits.csv", persons=3, most=9, sites=3)
    for shard in load_all(make_config()):
        assert set(shard.train.persons.tolist()) == {0}
        assert len(shard.validation) == len(shard.test) == 0
        assert len(shard.test.persons) == 0


def test_split_of_persons_follows_the_seed(make_config):
    first, second, other = (load_all(make_config(seed=seed))[0].test for seed in (1, 1, 2))
    assert np.array_equal(first.features, second.features)
    assert not np.array_equal(first.features, other.features)


def test_person_at_two_natural_sites_is_refused(make_config, tmp_path):
    path = tmp_path / "visits.csv"
    path.write_text(path.read_text() + f"{SECRET}0,3,h1,0\n{SECRET}5,3,h0,1\n")
    with pytest.raises(DataError, match="2 of the persons are at more than one site"):
        Shards.open(make_config())
    assert len(Shards.open(make_config(scheme="iid", sites=3))) == 3


def test_person_unit_needs_a_source_that_tells_persons(make_config):
    with pytest.raises(ConfigError, match=r"unit = 'person' needs .*name data\.person_column"):
        Shards.open(make_config(person=False, private=True))


def test_name_of_a_person_is_in_nothing_that_leaves(make_config):
    config = make_config(person=True)
    shards = Shards.open(config)
    preparation = fit_preparation([], config, shards.public)
    leaving = [
        repr(shards.public.to_json()),
        repr(shards.compute_statistics(0).to_json()),
        repr(preparation.to_json()),
        repr(shards.load(0, preparation)),
        repr(vars(shards)),  # not even held
    ]
    assert not any(SECRET in text for text in leaving)
    assert not any("patient" in text for text in leaving[:4])


def test_fingerprint_tells_who_belongs_together_and_no_name(make_config, tmp_path):
    path = tmp_path / "visits.csv"
    config = make_config(scheme="iid", sites=3)
    named = Shards.open(config).compute_fingerprint()
    path.write_text(path.read_text().replace(SECRET, "other"))
    assert Shards.open(config).compute_fingerprint() == named
    plain = Shards.from_records(replace(load_records(config), persons=None), config)
    assert plain.compute_fingerprint() != named


def test_person_column_is_not_wanted_of_new_records(make_config):
    config = make_config()
    preparation = fit_preparation([], config, Shards.open(config).public)
    assert [column.name for column in preparation.columns or ()] == ["age"]
