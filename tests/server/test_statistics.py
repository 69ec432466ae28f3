"""A preparation by a secure sum at real sites: folders, keys and a roster of their own."""

import numpy as np
import pytest

from fedtrain.config import parse_config
from fedtrain.errors import RunFailedError
from fedtrain.policy import Policy
from fedtrain.resolution import resolve
from server.draws import Draws
from server.setup import set_up
from tests.server.real_sites import RealGrid, make_federation

CONFIG = """
[data]
source = "csv"
label = "ill"
classes = ["0", "1"]
preparation = "standardise"
validation_fraction = 0.0
test_fraction = 0.0
bounds = {age = [0, 120]}
[partition]
scheme = "natural"
sites = 3
[model]
name = "logistic"
"""


@pytest.fixture
def federation(tmp_path):
    """Return the sites' ages, a grid of the sites, and the roster that their root signed."""
    policy = Policy(allowed_units=("none",))
    ages, roster = make_federation(tmp_path, policies=[policy] * 3)
    with RealGrid(tmp_path) as grid:
        yield ages, grid, roster


def open_setting(grid, roster, **options):
    config = resolve(parse_config(CONFIG))
    draws = Draws.from_system()
    return set_up(grid, config, run_id="one", draws=draws, roster=roster, **options)


def test_real_sites_standardise_by_a_secure_sum(federation):
    ages, grid, roster = federation
    (column,) = open_setting(grid, roster).preparation.columns
    pooled = np.concatenate(list(ages.values()))
    assert column.center == pytest.approx(pooled.mean(), rel=1e-4)
    assert column.scale == pytest.approx(pooled.std(), rel=1e-3)


def test_real_sites_give_a_sum_once_and_a_run_goes_on_with_it(federation):
    _, grid, roster = federation
    first = open_setting(grid, roster).preparation
    with pytest.raises(RunFailedError, match="the sum of statistics is void"):
        open_setting(grid, roster)
    assert open_setting(grid, roster, kept=first).preparation == first
