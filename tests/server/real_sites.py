"""Real sites in this process: folders, keys, policies and a signed roster of their own."""

import numpy as np

from clients.custody import ROOT_FILE, ROSTER_FILE, create_custody
from clients.runtime import forget_runs
from fedtrain.secagg import Identity
from fedtrain.secagg.files import save_public_key, save_roster
from fedtrain.secagg.roster import PinnedRoster, make_roster, sign_roster
from simulations.grid import InProcessGrid

SITES = ("anna", "berta", "clara")


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


def make_federation(path, *, policies):
    """Make the sites' folders and data; return each site's ages and the roster they pinned.

    Args:
        path: Where.
        policies: Of each site.
    """
    root, keys, ages = Identity.generate(), {}, {}
    for number, (name, policy) in enumerate(zip(SITES, policies, strict=True)):
        custody = create_custody(path / name, name, policy=policy)
        keys[name] = custody.identity.public_key
        ages[name] = np.random.default_rng(number).integers(20, 90, 50)
        write_ages(path, name, ages[name].tolist())
    signed = sign_roster(make_roster("federation", 1, keys=keys), root)
    for name in SITES:
        save_public_key(path / name / ROOT_FILE, root.public_key)
        save_roster(path / name / ROSTER_FILE, signed)
    return ages, PinnedRoster(signed, root.public_key, simulated=False)


def write_ages(path, name, ages):
    """Write a site's records: an age and whether it is ill."""
    rows = "\n".join(f"{age},{i % 2}" for i, age in enumerate(ages))
    (path / f"{name}.csv").write_text(f"age,ill\n{rows}\n")
    forget_runs()
