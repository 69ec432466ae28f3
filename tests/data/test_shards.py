import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fedtrain.config import Config, build_config
from fedtrain.data import shards as shards_module
from fedtrain.data.preparation import Preparation, fit_preparation
from fedtrain.data.shards import Shard, Shards
from fedtrain.errors import ConfigError, DataError

HEART = {
    "source": "csv",
    "label": "num > 0",
    "categorical": ("cp", "restecg", "slope", "thal"),
    "zero_is_missing": ("chol",),
}
NATURAL = {"scheme": "natural"}


def make_config(data: dict[str, Any], partition: dict[str, Any], seed: int = 0) -> Config:
    return build_config(
        {
            "run": {"seed": seed},
            "data": data,
            "partition": partition,
            "secure_aggregation": {"mode": "off"},
        }
    )


def digits(**partition: Any) -> Config:
    return make_config({"source": "sklearn:digits"}, {"sites": 10, **partition})


def prepare(config: Config) -> tuple[Shards, Preparation]:
    shards = Shards.open(config)
    statistics = (shards.compute_statistics(site) for site in range(len(shards)))
    return shards, fit_preparation(statistics, config, shards.public)


def load_all(config: Config) -> list[Shard]:
    shards, preparation = prepare(config)
    return [shards.load(site, preparation) for site in range(len(shards))]


def count(shard: Shard) -> int:
    return len(shard.train) + len(shard.validation) + len(shard.test)


def write_npz(folder: Path, x: np.ndarray, sites: list[str], y: list[int]) -> dict[str, Any]:
    np.savez(folder / "d.npz", x=x, y=y, site=sites)
    return {"source": "npz", "path": str(folder / "d.npz")}


def test_shards_hold_every_record_once_ready_for_a_model():
    loaded = load_all(digits(scheme="dirichlet"))
    assert sum(count(shard) for shard in loaded) == 1797
    features = loaded[0].train.features
    assert features.shape[1:] == (1, 8, 8)
    assert features.dtype == np.float32
    assert features.flags.c_contiguous
    assert 0 <= features.min() < features.max() <= 1
    assert loaded[0].train.labels.dtype == np.int64


def test_shards_open_alike_for_one_seed_and_differ_for_another():
    first, second, other = (Shards.open(digits(scheme="iid")) for _ in range(3))
    other = Shards.open(make_config({"source": "sklearn:digits"}, {"sites": 10}, seed=1))
    assert first.compute_fingerprint() == second.compute_fingerprint()
    assert first.compute_fingerprint() != other.compute_fingerprint()
    assert len(first.compute_fingerprint()) == 64


def test_site_names_are_padded_to_sort():
    assert Shards.open(digits(sites=3)).site_names == ("site-00", "site-01", "site-02")
    names = Shards.open(digits(sites=200)).site_names
    assert names[7] == "site-007"
    assert list(names) == sorted(names)


def test_split_of_a_site_does_not_depend_on_other_sites(tmp_path):
    x, y = np.arange(60.0)[:, None], [i % 2 for i in range(60)]
    both = make_config(write_npz(tmp_path, x, ["a"] * 30 + ["b"] * 30, y), NATURAL)
    preparation = Preparation("none", (1,), ("0", "1"))
    together = Shards.open(both).load(1, preparation)
    alone = make_config(write_npz(tmp_path, x[30:], ["b"] * 30, y[30:]), NATURAL)
    assert np.array_equal(
        Shards.open(alone).load(0, preparation).test.features, together.test.features
    )


def test_statistics_see_training_records_alone(tmp_path):
    x = np.arange(40.0)[:, None]
    config = make_config(write_npz(tmp_path, x, ["a"] * 40, [0, 1] * 20), NATURAL)
    shards, _ = prepare(config)
    train = shards.load(0, Preparation("none", (1,), ("0", "1"))).train
    statistics = shards.compute_statistics(0)
    assert statistics.records == len(train) == 28
    assert statistics.numeric["x"].total == (train.features.sum(),)
    assert statistics.labels == {"0": 14, "1": 14}


def test_load_is_cached_within_its_bound(monkeypatch):
    monkeypatch.setattr(shards_module, "CACHE_BYTES", 100_000)  # two digits sites of 180 images
    shards, preparation = prepare(digits())
    first = shards.load(0, preparation)
    assert shards.load(0, preparation) is first
    shards.load(1, preparation)
    shards.load(2, preparation)
    assert shards.load(0, preparation) is not first


def test_cache_is_not_shared_between_preparations():
    shards, preparation = prepare(digits())
    scaled = shards.load(0, preparation).train.features
    plain = shards.load(0, Preparation("none", (1, 8, 8), preparation.label_names)).train.features
    assert np.array_equal(plain, scaled * 16)


def test_thousand_sites_share_the_raw_data(tmp_path):
    x = np.random.default_rng(0).random((60000, 4), dtype=np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(60000) % 10)
    data = {"source": "npz", "path": str(tmp_path / "d.npz")}
    shards, preparation = prepare(make_config(data, {"scheme": "shards", "sites": 1000}))
    assert all(count(shards.load(site, preparation)) == 60 for site in range(0, 1000, 97))


@pytest.mark.parametrize("wrong", [np.nan, -np.inf, 1e300])
def test_value_that_is_not_finite_is_refused_by_site_and_feature(tmp_path, wrong):
    x = np.zeros((6, 2))
    x[4, 1] = wrong
    config = make_config(write_npz(tmp_path, x, [*"aaabbb"], [0, 1] * 3), NATURAL)
    with pytest.raises(DataError, match=r"site 'b': feature index 1 holds NaN, infinity"):
        Shards.open(config)


def test_infinite_number_in_a_table_is_refused_by_site_and_column(tmp_path):
    (tmp_path / "a.csv").write_text("v,y\n1,0\n")
    (tmp_path / "b.csv").write_text("v,y\ninf,0\n")
    config = make_config({"source": "csv", "path": str(tmp_path), "label": "y"}, NATURAL)
    with pytest.raises(DataError, match="site 'b': column 'v' holds NaN, infinity"):
        Shards.open(config)


def test_site_without_a_labelled_row_is_refused_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("v,y\n1,0\n")
    (tmp_path / "b.csv").write_text("v,y\n1,?\n")
    config = make_config({"source": "csv", "path": str(tmp_path), "label": "y"}, NATURAL)
    with pytest.raises(DataError, match="site 'b' has no rows with a label"):
        Shards.open(config)


def test_site_below_the_minimum_is_refused_by_name(tmp_path):
    data = write_npz(tmp_path, np.zeros((3, 1)), ["a", "a", "b"], [0, 1, 0])
    with pytest.raises(
        DataError, match=r"site 'b' has fewer records than partition\.min_records = 2"
    ):
        Shards.open(make_config(data, {**NATURAL, "min_records": 2}))


def test_label_outside_the_classes_is_refused_by_site(tmp_path):
    data = write_npz(tmp_path, np.zeros((3, 1)), ["a", "a", "b"], [0, 1, 7])
    with pytest.raises(DataError, match="site 'b': label '7' is none of the 2 classes"):
        Shards.open(make_config({**data, "classes": ("0", "1")}, NATURAL))


def test_natural_partition_needs_sites_and_no_number_of_its_own(tmp_path):
    with pytest.raises(ConfigError, match="says no site here"):
        Shards.open(make_config({"source": "sklearn:digits"}, NATURAL))
    data = write_npz(tmp_path, np.zeros((3, 1)), ["a", "a", "b"], [0, 1, 0])
    with pytest.raises(ConfigError, match="sites = 5 but the data has 2 natural sites"):
        Shards.open(make_config(data, {**NATURAL, "sites": 5}))


def test_site_with_one_class_or_less_than_a_batch_works_with_a_warning(tmp_path, caplog):
    sites, y = ["big"] * 100 + ["tiny"], [0, 1] * 50 + [1]
    config = make_config(write_npz(tmp_path, np.zeros((101, 1)), sites, y), NATURAL)
    with caplog.at_level(logging.WARNING, logger="fedtrain.data"):
        loaded = load_all(config)
    assert [count(shard) for shard in loaded] == [100, 1]
    assert len(loaded[1].train) == 1
    assert "event=one_class sites=tiny" in caplog.text
    assert "event=fewer_records_than_a_batch sites=tiny" in caplog.text


def test_central_test_set_is_prepared_like_the_sites(shared_data):
    data = {"source": "idx", "path": str(shared_data("mnist"))}
    shards, preparation = prepare(make_config(data, {"sites": 100}))
    central = shards.load_central_test(preparation)
    assert central.features.shape == (10000, 1, 28, 28)
    assert central.features.max() == 1
    assert central.labels[:3].tolist() == [7, 2, 1]
    assert Shards.open(digits()).load_central_test(preparation) is None


def open_hospitals(path: Path, seed: int = 0) -> Config:
    return make_config({**HEART, "path": str(path)}, NATURAL, seed)


def test_hospitals_are_read_as_they_are(shared_data):
    shards, preparation = prepare(open_hospitals(shared_data("heart_disease")))
    assert shards.site_names == ("cleveland", "hungarian", "switzerland", "va")
    loaded = [shards.load(site, preparation) for site in range(4)]
    assert [count(shard) for shard in loaded] == [303, 294, 123, 200]
    assert len(preparation.columns) == 13
    assert preparation.label_names == ("false", "true")


def test_column_that_a_hospital_lacks_comes_from_the_federation(shared_data):
    shards, preparation = prepare(open_hospitals(shared_data("heart_disease")))
    chol = [column.name for column in preparation.columns].index("chol")
    switzerland = shards.load(2, preparation).train.features
    position = sum(
        1 if not hasattr(column, "categories") else len(column.categories) + column.marks_missing
        for column in preparation.columns[:chol]
    )
    assert np.abs(switzerland[:, position]).max() == 0  # its standardised mean
    assert 180 < preparation.columns[chol].fill < 280


def test_logistic_regression_on_the_hospitals_reaches_its_auc(shared_data):
    scores = []
    for seed in range(5):
        loaded = load_all(open_hospitals(shared_data("heart_disease"), seed))
        train, test = (
            [np.concatenate(arrays) for arrays in zip(*pairs, strict=True)]
            for pairs in (
                [(shard.train.features, shard.train.labels) for shard in loaded],
                [(shard.test.features, shard.test.labels) for shard in loaded],
            )
        )
        model = LogisticRegression(max_iter=1000).fit(*train)
        scores.append(roc_auc_score(test[1], model.decision_function(test[0])))
    assert np.mean(scores) >= 0.86


def test_speakers_are_sites_of_ids(shared_data):
    data = {"source": "text", "path": str(shared_data("shakespeare") / "tinyshakespeare.txt")}
    shards, preparation = prepare(make_config(data, NATURAL))
    romeo = shards.load(shards.site_names.index("ROMEO"), preparation)
    assert romeo.train.features.dtype == np.int64
    assert romeo.train.features.shape[1] == 32
    assert 0 <= romeo.train.features.min() <= romeo.train.features.max() <= 96


def test_columns_are_chosen_from_a_table_that_ships():
    data = {"source": "sklearn:breast_cancer", "columns": ("mean texture", "mean area")}
    shards, preparation = prepare(make_config(data, {"sites": 3}))
    assert shards.load(0, preparation).train.features.shape[1] == 2
    with pytest.raises(DataError, match="names no column 'mean are'; did you mean 'mean area'"):
        Shards.open(make_config({**data, "columns": ("mean are",)}, {"sites": 3}))


def test_own_data_of_a_site_is_its_shard_of_the_simulation(tmp_path: Path) -> None:
    """A federation of the same files gives a site the same splits on one machine and on its own."""
    generator = np.random.default_rng(0)
    for name in ("anna", "berta"):
        rows = [f"{a:.3f},{b:.3f},{int(a > b)}" for a, b in generator.normal(size=(60, 2))]
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,y", *rows]) + "\n")
    data = {"source": "csv", "path": str(tmp_path), "label": "y", "preparation": "none"}
    shards, preparation = prepare(make_config(data, NATURAL))
    own_data = data | {"path": str(tmp_path / "berta.csv")}
    own = Shards.open(make_config(own_data, {**NATURAL, "sites": 2}), own="berta")
    assert own.site_names == ("berta",)
    mine, theirs = own.load(0, preparation), shards.load(1, preparation)
    assert np.array_equal(mine.train.features, theirs.train.features)
    assert np.array_equal(mine.test.labels, theirs.test.labels)
