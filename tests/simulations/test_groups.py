"""Metrics by group through a whole federation, from a table of made-up rows."""

import json

import numpy as np
import pytest

from fedtrain.config import parse_config
from fedtrain.errors import ConfigError
from fedtrain.resolution import resolve
from simulations.progress import Silence
from simulations.simulate import open_config, simulate, start

TABLE = """
[run]
name = "groups"
[data]
source = "csv"
label = "y"
classes = ["0", "1"]
group_column = "group"
preparation = "bounds"
validation_fraction = 0.0
test_fraction = 0.5
[data.bounds]
x = [-3, 3]
[data.categories]
group = ["f", "m", "none of them"]
[partition]
sites = 3
[model]
name = "logistic"
[training]
learning_rate = 1.0
local_epochs = 20
[federation]
rounds = 2
[secure_aggregation]
mode = "{mode}"
"""


def write_table(path) -> None:
    """The label follows x, for group m the other way round."""
    draws = np.random.default_rng(0)
    x, group = draws.uniform(-3, 3, 400), np.where(draws.random(400) < 0.8, "f", "m")
    label = ((x > 0) ^ (group == "m")).astype(int)
    rows = [f"{a:.3f},{g},{y}" for a, g, y in zip(x, group, label, strict=True)]
    path.write_text("x,group,y\n" + "\n".join(rows) + "\n")


def run(tmp_path, mode: str):
    write_table(tmp_path / "table.csv")
    overrides = [f"data.path={tmp_path / 'table.csv'}", 'data.columns=["x","group"]']
    config = resolve(parse_config(TABLE.format(mode=mode), overrides))
    directory = start(open_config(config), tmp_path / mode)
    simulate(directory, Silence())
    return directory


@pytest.mark.parametrize("mode", ["protocol", "off"])
def test_group_that_a_model_fails_is_found(tmp_path, mode):
    last = run(tmp_path, mode).read_metrics()[-1]
    assert last["group:f_accuracy"] > 0.8
    assert last["group_worst_accuracy"] == last["group:m_accuracy"] < 0.4
    assert last["group_equalised_odds_gap"] > 0.4
    assert "group:none of them_accuracy" not in last
    low, high = last["group:m_accuracy"], last["group:f_accuracy"]
    assert low <= last["test_accuracy"] <= high


def test_sites_write_their_own_groups_down(tmp_path):
    directory = run(tmp_path, "protocol")
    sites = [json.loads(file.read_text()) for file in (directory.path / "sites").glob("*.json")]
    assert all("group_worst_accuracy" in site for site in sites)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.group_column=x"], "data.categories.x"),
        (["data.source=sklearn:digits"], "has no columns"),
        (["data.test_fraction=0"], "set it to 0.2"),
        (["data.group_column=z", 'data.categories={z = ["a"]}'], "no feature column"),
    ],
)
def test_groups_that_cannot_be_told_are_refused(tmp_path, overrides, message):
    write_table(tmp_path / "table.csv")
    path = f"data.path={tmp_path / 'table.csv'}"
    with pytest.raises(ConfigError, match=message):
        try_out(tmp_path / "run", path, *overrides)


def try_out(path, *overrides: str) -> None:
    config = resolve(parse_config(TABLE.format(mode="off"), overrides))
    simulate(start(open_config(config), path), Silence())
