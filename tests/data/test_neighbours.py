"""Neighbour replay of a site's splits: all of its records, and all but one unit."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fedtrain.config import Config, build_config
from fedtrain.data.columns import Category, Numeric, Table, encode_values
from fedtrain.data.persons import digest_persons, number_persons
from fedtrain.data.preparation import fit_preparation
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records, take_features
from fedtrain.data.shards import Shard, Shards
from fedtrain.errors import ConfigError, DataError, PeerError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.training.local import LocalTask, LocalTrainer

PARTS = ("train", "validation", "test")
POISSON = {
    "sampling": "poisson",
    "sample_rate": 0.1,
    "expected_batch_size": 8.0,
    "local_steps": 3,
}
ARRAY = {"bounds": {"x": (0, 1)}}
TABLE = {"bounds": {"age": (0, 99)}, "categories": {"colour": ("blue", "green", "red", "teal")}}


def make_config(
    unit: str, *, seed: int = 0, min_records: int = 1, scheme: str = "natural", **data: Any
) -> Config:
    protected = {"privacy": {"unit": unit, "noise_multiplier": 1.0}, "training": POISSON}
    sites = {} if scheme == "natural" else {"sites": 1}
    return build_config(
        {
            "run": {"seed": seed},
            "data": {"source": "npz", "classes": ("0", "1"), **(data or ARRAY)},
            "partition": {"scheme": scheme, "min_records": min_records, **sites},
            "secure_aggregation": {"mode": "off"},
            **(protected if unit != "none" else {}),
        }
    )


def load(records: Records, unit: str = "record", **options: Any) -> Shard:
    """Return the splits of a site whose raw records these are."""
    config = make_config(unit, **options)
    shards = Shards.from_records(records, config)
    return shards.load(0, fit_preparation([], config, shards.public))


def make_records(n: int = 300) -> Records:
    """Return records of which some are equal, of persons of whom some are alike."""
    generator = np.random.default_rng(0)
    features = generator.integers(0, 12, (n, 2)).astype(np.float64) / 11
    names = generator.integers(100, 100 + n // 4, n)
    return Records(
        features,
        encode_values(generator.integers(0, 2, n)),
        PublicConstants(input_shape=(2,)),
        sites=Category(np.zeros(n, np.int32), ("a",)),
        persons=number_persons(names),
        person_digests=digest_persons(names),
    )


def make_table(n: int = 300) -> Records:
    """Return a table in which one record alone is red, so that without it codes shift."""
    names = np.where(np.arange(n) % 3, "teal", "blue")
    names[7] = "red"
    columns = {"age": Numeric(np.arange(n) % 90.0), "colour": encode_values(names)}
    public = PublicConstants(columns=("age", "colour"))
    return replace(forget_persons(make_records(n)), features=Table(columns, n), public=public)


def forget_persons(records: Records) -> Records:
    return replace(records, persons=None, person_digests=None)


def take(records: Records, kept: np.ndarray) -> Records:
    """Return some of the records as a file that holds only these would give them."""

    def read(category: Category) -> Category:
        if not len(kept):
            return Category(category.codes[:0], ())
        return encode_values(np.array(category.names)[category.codes[kept]])

    features = take_features(records.features, kept)
    if isinstance(features, Table):
        columns = dict(features.columns) | {"colour": read(records.features.columns["colour"])}
        features = Table(columns, len(kept))
    known = records.persons is not None
    return replace(
        records,
        features=features,
        labels=read(records.labels),
        sites=records.sites.take(kept),
        persons=number_persons(records.persons[kept]) if known else None,
        person_digests=records.person_digests[kept] if known else None,
    )


def count_units(shard: Shard, part: str) -> Counter[bytes]:
    split = getattr(shard, part)
    pairs = zip(split.features, split.labels, strict=True)
    return Counter(row.tobytes() + bytes([label]) for row, label in pairs)


def count_moved(whole: Shard, less: Shard) -> int:
    """Return in how many places the splits differ; a unit that is gone differs in one."""
    counts = [(count_units(whole, part), count_units(less, part)) for part in PARTS]
    return sum(((a - b) + (b - a)).total() for a, b in counts)


def remove(records: Records, row: int) -> Records:
    return take(records, np.delete(np.arange(len(records)), row))


@pytest.mark.parametrize("records", [forget_persons(make_records()), make_table()])
def test_record_that_is_gone_moves_no_other(records):
    data = TABLE if isinstance(records.features, Table) else ARRAY
    whole = load(records, **data)
    moved = [count_moved(whole, load(remove(records, row), **data)) for row in range(0, 300, 7)]
    assert moved == [1] * len(moved)


def test_record_of_a_person_that_is_gone_moves_no_other():
    records = make_records()
    whole = load(records)
    moved = [count_moved(whole, load(remove(records, row))) for row in range(0, 300, 7)]
    assert moved == [1] * len(moved)


def test_person_that_is_gone_moves_no_other():
    records = make_records()
    whole = load(records, "person")
    for person in range(0, 60, 7):
        owned = records.persons == person
        less = load(take(records, np.flatnonzero(~owned)), "person")
        assert count_moved(whole, less) == owned.sum()


def test_stratified_split_moves_many():
    records = forget_persons(make_records())
    whole = load(records, "none")
    moved = [count_moved(whole, load(remove(records, row), "none")) for row in range(0, 300, 30)]
    assert np.median(moved) > 30


@pytest.mark.parametrize("records", [forget_persons(make_records()), make_records()])
def test_order_of_records_moves_none(records):
    shuffled = take(records, np.random.default_rng(1).permutation(len(records)))
    assert count_moved(load(records), load(shuffled)) == 0


def test_persons_stay_whole_where_the_unit_is_a_record():
    records = make_records()
    splits = [getattr(load(records), part) for part in PARTS]
    assert sum(len(set(split.persons)) for split in splits) == len(set(records.persons))


@pytest.mark.parametrize("equal", [False, True])
def test_shares_are_about_the_fractions(equal):
    records = forget_persons(make_records(3000))
    if equal:
        records = replace(records, features=np.zeros((3000, 2)))
    shard = load(records)
    for part, share in zip(PARTS, (0.7, 0.1, 0.2), strict=True):
        assert abs(len(getattr(shard, part)) / 3000 - share) < 0.045  # 5 standard deviations


def test_splits_follow_the_seed():
    records = forget_persons(make_records())
    assert count_moved(load(records, seed=1), load(records, seed=1)) == 0
    assert count_moved(load(records, seed=1), load(records, seed=2)) > 30


def test_record_alone_may_be_in_any_split():
    alone = take(forget_persons(make_records()), np.array([0]))
    shards = [load(alone, seed=seed) for seed in range(40)]
    assert all(any(len(getattr(shard, part)) for shard in shards) for part in PARTS)


@pytest.mark.parametrize("kept", [[], [0]])
def test_site_of_hardly_a_record_is_not_refused(kept):
    shard = load(take(forget_persons(make_records()), np.array(kept, int)), min_records=5)
    assert sum(len(getattr(shard, part)) for part in PARTS) == len(kept)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1e300])
def test_record_with_a_wrong_value_is_left_out_alone(wrong):
    records = forget_persons(make_records())
    features = records.features.copy()
    features[5, 1] = wrong
    spoiled = load(replace(records, features=features))
    assert count_moved(spoiled, load(remove(records, 5))) == 0


def test_record_of_an_unknown_class_is_left_out_alone():
    records = make_records()
    codes = records.labels.codes.copy()
    codes[5] = 2
    spoiled = replace(records, labels=Category(codes, (*records.labels.names, "7")))
    assert count_moved(load(spoiled), load(remove(records, 5))) == 0


def test_statistics_of_protected_records_are_refused():
    shards = Shards.from_records(make_records(), make_config("record"))
    with pytest.raises(ConfigError, match=r"^privacy\.unit = 'record' lets no sums"):
        shards.compute_statistics(0)


@pytest.mark.parametrize(
    "change", [{"scale": (1e-38,)}, {"center": (0.5,)}, {"label_names": ("0",)}, {"kind": "none"}]
)
def test_preparation_of_the_coordinators_own_making_is_refused(change):
    config = make_config("record")
    shards = Shards.from_records(make_records(), config)
    preparation = replace(fit_preparation([], config, shards.public), **change)
    with pytest.raises(PeerError, match="is not the one that the config gives"):
        shards.load(0, preparation)


@pytest.mark.parametrize("names", [("0", "1"), ("1",)], ids=["public", "asked"])
def test_site_under_site_level_privacy_is_not_asked_for_a_class_by_a_preparation(names):
    tree = {"unit": "site", "site": {"noise_multiplier": 1.0, "max_update_norm": 1.0}}
    data = {"source": "npz", "classes": ("0", "1"), **ARRAY}
    config = build_config({"privacy": tree, "data": data, "partition": {"sites": 3}})
    shards = Shards.from_records(make_records(), config)
    preparation = replace(fit_preparation([], config, shards.public), label_names=names)
    asked = pytest.raises(PeerError, match="is not the one") if len(names) < 2 else nullcontext()
    with asked:  # and not: "label '0' is none of the 1 classes", which tells of a record
        shards.load(0, preparation)


@pytest.mark.parametrize("records", [1, 40], ids=["only one", "one of many"])
@pytest.mark.parametrize("wrong", ["value", "class"])
def test_site_under_site_level_privacy_is_not_refused_for_a_record(records, wrong):
    tree = {"unit": "site", "site": {"noise_multiplier": 1.0, "max_update_norm": 1.0}}
    data = {"source": "npz", "classes": ("0", "1"), **ARRAY}
    config = build_config({"privacy": tree, "data": data, "partition": {"scheme": "natural"}})
    given = take(forget_persons(make_records()), np.arange(records))
    codes, features = given.labels.codes.copy(), given.features.copy()
    if wrong == "class":
        codes[0] = len(given.labels.names)
    else:
        features[0, 0] = np.nan
    labels = Category(codes, (*given.labels.names, "7"))
    spoiled = replace(given, labels=labels, features=features)
    shards = Shards.from_records(spoiled, config)
    loaded = shards.load(0, fit_preparation([], config, shards.public))
    assert (
        sum(len(split) for split in (loaded.train, loaded.validation, loaded.test)) == records - 1
    )
    with pytest.raises(DataError):
        Shards.from_records(spoiled, config, strict=True)


VISITS = "p,age,colour,y\n" + "".join(
    f"v{i // 3},{i},{'blue' if i % 2 else 'red'},{i % 2}\n" for i in range(200)
)


@pytest.mark.parametrize(
    "row", ["v9,old,red,1", "v9,1,red,7", "v9,1,red,0.5", ",1,red,1", "v9,inf,red,1", "v9,1,red,"]
)
def test_row_that_cannot_be_used_changes_nothing(tmp_path, row):
    data = TABLE | {"source": "csv", "label": "y", "person_column": "p"}
    shards = []
    for name, text in (("a", VISITS), ("b", VISITS + row + "\n")):
        (tmp_path / f"{name}.csv").write_text(text)
        config = make_config("person", path=str(tmp_path / f"{name}.csv"), scheme="iid", **data)
        opened = Shards.open(config)
        shards.append(opened.load(0, fit_preparation([], config, opened.public)))
    assert count_moved(*shards) == 0


@pytest.mark.parametrize(
    ("task", "row"), [("regression", "1,inf"), ("regression", "1,1e39"), ("multi_label", "1,2")]
)
def test_row_of_a_target_that_cannot_be_used_changes_nothing(tmp_path, task, row):
    given = {"target_bounds": (0, 1)} if task == "regression" else {"targets": ("y",)}
    data = {"source": "csv", "label": "y", "bounds": {"age": (0, 99)}, "task": task, **given}
    data |= {"classes": None} | ({"label": None} if task == "multi_label" else {})
    text, shards = "age,y\n" + "".join(f"{i},{i % 2}\n" for i in range(99)), []
    for number, lines in enumerate((text, text + row + "\n")):
        (tmp_path / f"{number}.csv").write_text(lines)
        config = make_config("record", path=str(tmp_path / f"{number}.csv"), scheme="iid", **data)
        opened = Shards.open(config)
        shards.append(opened.load(0, fit_preparation([], config, opened.public)))
    assert [len(part.train) for part in shards] == [len(shards[0].train)] * 2


@pytest.mark.parametrize(
    ("task", "wrong"), [("regression", np.nan), ("regression", 1e39), ("multi_label", 2.0)]
)
def test_record_of_an_array_with_a_target_that_cannot_be_used_is_left_out(tmp_path, task, wrong):
    x, y = np.random.default_rng(0).random((50, 2)), np.arange(50.0) % 2
    given = {"target_bounds": (0, 1)} if task == "regression" else {"targets": ("y",)}
    data = {"task": task, "classes": None, "path": str(tmp_path / "d.npz"), **ARRAY, **given}
    config = make_config("record", scheme="iid", **data)
    counts = []
    for values in (y, np.append(y, wrong)):
        np.savez(tmp_path / "d.npz", x=x[[*range(50), 0][: len(values)]], y=values)
        counts.append(Shards.open(config).count_records())
    assert counts == [50, 50]
    with pytest.raises(DataError):
        Shards.open(config, strict=True)


def open_images(folder, **data):
    given = {"source": "images", "bounds": {}, "image_size": (4, 4), "path": str(folder)} | data
    return Shards.open(make_config("record", scheme="iid", **given))


@pytest.mark.parametrize("row", ["colour", "size", "damaged"])
def test_image_unlike_the_others_changes_nothing_of_them(tmp_path, row):
    for number, folder in enumerate((tmp_path / "a" / "0", tmp_path / "b" / "0")):
        folder.mkdir(parents=True)
        for value in range(9):
            Image.new("L", (4, 4), 20 * value).save(folder / f"{value}.png")
        if number and row == "damaged":
            (folder / "x.png").write_bytes(b"no image")
        elif number:
            size = (5, 4) if row == "size" else (4, 4)
            Image.new("RGB" if row == "colour" else "L", size).save(folder / "x.png")
    without, whole = open_images(tmp_path / "a"), open_images(tmp_path / "b")
    assert whole.public == without.public
    assert whole.count_records() - without.count_records() == (row != "damaged")


def test_images_under_privacy_need_a_size_of_their_own():
    with pytest.raises(ConfigError, match=r"data\.image_size is missing"):
        make_config("record", scheme="iid", source="images", path=".", bounds={})


def test_owner_of_the_data_is_told_of_a_row_that_cannot_be_used(tmp_path):
    (tmp_path / "d.csv").write_text(VISITS + "v9,old,red,1\n")
    data = TABLE | {"source": "csv", "label": "y", "person_column": "p"}
    config = make_config("person", path=str(tmp_path / "d.csv"), scheme="iid", **data)
    with pytest.raises(DataError, match="column 'age' holds text that is no number"):
        Shards.open(config, strict=True)


def test_site_without_a_training_record_answers_with_noise():
    config = make_config("record")
    nobody = load(take(forget_persons(make_records()), np.array([], int))).train
    model = nn.Linear(2, 2)
    task = LocalTask(
        records=nobody,
        start=np.zeros(6, np.float32),
        shuffling=torch.Generator(),
        sampling=SecureGenerator.from_seed(0, "sampling"),
        noise=SecureGenerator.from_seed(0, "noise"),
    )
    (update,) = LocalTrainer(model, config).train([task])
    assert update.steps == config.training.local_steps
    assert np.all(update.vector != 0)
