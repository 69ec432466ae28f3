import numpy as np
import pytest

from fedtrain.config import parse_config
from fedtrain.data.preparation import Preparation, fit_preparation
from fedtrain.data.series import build_windows, split_in_time
from fedtrain.data.shards import Shards
from fedtrain.data.sources import load_records
from fedtrain.data.targets import read_targets, scale_targets
from fedtrain.errors import ConfigError, DataError

TABLE = (
    "age,bmi,site,price,sick,tired\n30,20,a,12,1,0\n40,25,a,90,0,0\n50,30,b,,1,1\n60,22,b,55,0,1\n"
)
CONFIG = """
[data]
source = "csv"
path = "{path}"
site_column = "site"
columns = ["age", "bmi"]
validation_fraction = 0
test_fraction = 0
{keys}
[data.bounds]
age = [0, 100]
bmi = [10, 50]
[partition]
scheme = "natural"
"""
SERIES = """
[data]
task = "forecasting"
target_bounds = [0, 10]
sequence_length = 4
horizon = 2
[partition]
scheme = "natural"
"""


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)

    def load(keys):
        config = parse_config(CONFIG.format(path=path, keys=keys))
        shards = Shards.open(config)
        preparation = fit_preparation([], config, shards.public)
        return shards, preparation, [shards.load(site, preparation).train for site in (0, 1)]

    return load


def test_regression_reads_and_scales_a_column_and_drops_rows_without_it(load):
    _, preparation, (first, second) = load(
        'task = "regression"\nlabel = "price"\ntarget_bounds = [10, 60]'
    )
    np.testing.assert_allclose(first.labels, [[0.04], [1.0]])  # 90 counts as 60
    np.testing.assert_allclose(second.labels, [[0.9]])
    assert preparation.outputs == 1
    assert Preparation.from_json(preparation.to_json()) == preparation


def test_several_labels_are_columns_and_no_features(load):
    _, preparation, (first, second) = load('task = "multi_label"\ntargets = ["sick", "tired"]')
    np.testing.assert_array_equal(first.labels, [[1, 0], [0, 0]])
    np.testing.assert_array_equal(second.labels, [[1, 1], [0, 1]])
    assert preparation.label_names == ("sick", "tired")


def test_fingerprint_depends_on_targets(load):
    one, _, _ = load('task = "multi_label"\ntargets = ["sick", "tired"]')
    other, _, _ = load('task = "multi_label"\ntargets = ["tired", "sick"]')
    assert one.compute_fingerprint() != other.compute_fingerprint()


@pytest.mark.parametrize("values", [[0.5, 1], [np.nan, 1], [2, 0]])
def test_labels_other_than_0_and_1_are_refused(values):
    config = parse_config("[data]\ntask = 'multi_label'")
    with pytest.raises(DataError, match="x: a"):
        read_targets(np.array(values), config, "x")


def test_scaled_targets_stay_within_their_bounds():
    scaled = scale_targets(np.array([[-1e30], [5.0], [1e30]], np.float32), (0.0, 10.0))
    np.testing.assert_array_equal(scaled, [[0], [0.5], [1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data]\ntask = 'regression'", "target_bounds is missing"),
        ("[data]\nhorizon = 2", "no effect while data.task = 'classification'"),
        ("[data]\ntask = 'forecasting'\ntarget_bounds = [0, 1]", "natural"),
        ("[data]\ntask = 'multi_label'\nclasses = ['a', 'b']", "data.classes has no effect"),
        ("[data]\ntask = 'multi_label'\n[partition]\nscheme='shards'\nsites=3", "deals records"),
        ("[data]\ntask = 'anomaly'\n[training]\nloss = 'bce'", "choose mse"),
        ("[data]\ntask = 'anomaly'\n[audit]\nmethods = ['one_run']", "remove them"),
    ],
)
def test_task_and_config_that_contradict_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(text)


def test_task_without_targets_and_targets_without_task_are_refused():
    with pytest.raises(ConfigError, match="needs targets"):
        Shards.open(parse_config("[data]\ntask = 'multi_label'"))
    with pytest.raises(ConfigError, match=r"set\s+data.task = 'regression'"):
        Shards.open(
            parse_config(
                "[data]\nsource = 'sklearn:diabetes'\npreparation = 'none'"
                "\n[secure_aggregation]\nmode = 'off'"
            )
        )


def test_windows_hold_what_was_and_what_came_after():
    records = build_windows({"b": np.arange(8.0), "a": np.arange(7.0)}, parse_config(SERIES))
    np.testing.assert_array_equal(records.features[0], [0, 1, 2, 3])
    np.testing.assert_array_equal(records.targets[0], [4, 5])
    assert records.sites.names == ("a", "b")
    assert len(records) == 2 + 3


def test_splits_in_time_share_no_measurement():
    config = parse_config(SERIES)
    split = split_in_time(60, config)
    reach = 4 + 2
    assert split.train[-1] + reach <= split.validation[0]
    assert split.validation[-1] + reach <= split.test[0]
    assert split.test[-1] == 59


def test_series_that_is_too_short_or_has_a_gap_is_refused():
    config = parse_config(SERIES)
    with pytest.raises(DataError, match="5 measurements, below"):
        build_windows({"a": np.arange(5.0)}, config)
    with pytest.raises(DataError, match="NaN"):
        build_windows({"a": np.array([1.0, np.nan] * 5)}, config)


SITE = "\n[privacy]\nunit = 'site'\nsite = {noise_multiplier = 1.0, max_update_norm = 1.0}\n"


@pytest.mark.parametrize(
    ("series", "windows"), [(np.arange(5.0), 0), (np.r_[np.arange(8.0), np.nan, np.arange(6.0)], 4)]
)
def test_protected_series_that_is_too_short_or_has_a_gap_has_fewer_windows(series, windows):
    config = parse_config(SERIES + SITE)
    records = build_windows({"a": series}, config, strict=False)
    assert len(records) == len(records.targets) == windows
    assert np.isfinite(records.features).all()
    parts = split_in_time(windows, config).get_parts()
    rows = np.concatenate(parts)
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(range(windows))


def test_split_of_protected_records_with_targets_depends_on_each_alone():
    text = """
[data]
source = "sklearn:diabetes"
task = "regression"
target_bounds = [0, 400]
test_fraction = 0.5
[partition]
scheme = "iid"
sites = 1
[training]
sampling = "poisson"
sample_rate = 0.1
expected_batch_size = 4.0
[privacy]
unit = "record"
noise_multiplier = 1.0
[secure_aggregation]
mode = "off"
"""
    names = ("age", "sex", "bmi", "bp", *(f"s{number}" for number in range(1, 7)))
    bounds = "".join(f"{name} = [0, 400]\n" for name in names)
    config = parse_config(f"{text}[data.bounds]\n{bounds}")
    records = load_records(config)
    twins = records.take(np.array([0, 0, *range(20)]))
    twins.targets[:2] = [[1.0], [2.0]]  # equal but for their targets
    splits = []
    for kept in (np.arange(22), np.arange(1, 22)):
        shards = Shards.from_records(twins.take(kept), config)
        shard = shards.load(0, fit_preparation([], config, shards.public))
        splits.append(sorted(shard.train.labels[:, 0].tolist()))
    whole, without = splits
    assert [label for label in whole if label != np.float32(1 / 400)] == without
