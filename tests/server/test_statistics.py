"""A preparation by a secure sum at real sites: folders, keys and a roster of their own."""

import numpy as np
import pytest

from clients.custody import ROOT_FILE, ROSTER_FILE, create_custody
from fedtrain.config import parse_config
from fedtrain.errors import RunFailedError
from fedtrain.policy import Policy
from fedtrain.resolution import resolve
from fedtrain.secagg import Identity
from fedtrain.secagg.files import save_public_key, save_roster
from fedtrain.secagg.roster import PinnedRoster, make_roster, sign_roster
from server.draws import Draws
from server.setup import set_up
from simulations.grid import InProcessGrid

SITES = ("anna", "berta", "clara")
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


class RealGrid(InProcessGrid):
    """Three sites with folders of their own, in this process."""

    def __init__(self, path):
        super().__init__("clients.app:app", sites=3)
        self._path = path

    def _make_node_config(self, node_id):
        name = SITES[super()._make_node_config(node_id)["partition-id"]]
        return {
            "site-dir": str(self._path / name),
            "data-path": str(self._path / f"{name}.csv"),
        }


@pytest.fixture
def federation(tmp_path):
    """Return the sites' ages, a grid of the sites, and the roster that their root signed."""
    root, keys, ages = Identity.generate(), {}, {}
    for number, name in enumerate(SITES):
        custody = create_custody(tmp_path / name, name, policy=Policy(allowed_units=("none",)))
        keys[name] = custody.identity.public_key
        ages[name] = np.random.default_rng(number).integers(20, 90, 50)
        rows = "\n".join(f"{age},{i % 2}" for i, age in enumerate(ages[name].tolist()))
        (tmp_path / f"{name}.csv").write_text(f"age,ill\n{rows}\n")
    signed = sign_roster(make_roster("federation", 1, keys=keys), root)
    for name in SITES:
        save_public_key(tmp_path / name / ROOT_FILE, root.public_key)
        save_roster(tmp_path / name / ROSTER_FILE, signed)
    with RealGrid(tmp_path) as grid:
        yield ages, grid, PinnedRoster(signed, root.public_key, simulated=False)


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
