import pytest

from clients.custody import create_custody
from fedtrain.config import build_config, parse_config
from fedtrain.errors import RunFailedError
from fedtrain.resolution import resolve
from server.setup import set_up
from simulations.grid import InProcessGrid

CLIENT_APP = "clients.app:app"


def make_config(sites, **federation):
    return resolve(
        build_config(
            {
                "data": {"source": "sklearn:digits"},
                "partition": {"sites": sites},
                "model": {"name": "logistic"},
                "federation": federation,
                "secure_aggregation": {"mode": "off"},
            }
        )
    )


class LateGrid(InProcessGrid):
    """Shows one more site each time it is asked."""

    seen = 0

    def get_node_ids(self):
        self.seen += 1
        return list(super().get_node_ids())[: self.seen]


class TwinGrid(InProcessGrid):
    """Every node says that it is the same site."""

    def _make_node_config(self, node_id):
        return super()._make_node_config(node_id) | {"partition-id": 1}


class FilesGrid(InProcessGrid):
    """Every site has a folder and a file of its own, as a deployed one has."""

    def __init__(self, path, *arguments, **options):
        super().__init__(*arguments, **options)
        self._path = path

    def _make_node_config(self, node_id):
        name = "abc"[super()._make_node_config(node_id)["partition-id"]]
        folder = self._path / "sites" / name
        if not folder.exists():
            create_custody(folder, name)
        return {"site-dir": str(folder), "data-path": str(self._path / f"{name}.csv")}


def test_setup_orders_members_by_site_index():
    with InProcessGrid(CLIENT_APP, sites=3) as grid:
        setting = set_up(grid, make_config(3))
    assert [member.index for member in setting.members] == [0, 1, 2]
    assert len({member.name for member in setting.members}) == 3


def test_setup_waits_for_sites_that_connect_late():
    with LateGrid(CLIENT_APP, sites=2) as grid:
        assert len(set_up(grid, make_config(2)).members) == 2
        assert grid.seen == 2


def test_setup_gives_up_on_sites_that_never_connect():
    with (
        InProcessGrid(CLIENT_APP, sites=1) as grid,
        pytest.raises(RunFailedError, match=r"1 sites are connected .* partition.sites = 2"),
    ):
        set_up(grid, make_config(2, round_timeout=0.1))


def test_setup_refuses_more_nodes_than_sites():
    with (
        InProcessGrid(CLIENT_APP, sites=3) as grid,
        pytest.raises(RunFailedError, match=r"3 sites are connected, above partition.sites = 2"),
    ):
        set_up(grid, make_config(2))


def test_setup_refuses_two_nodes_for_one_site():
    with (
        TwinGrid(CLIENT_APP, sites=2) as grid,
        pytest.raises(RunFailedError, match="2 nodes say that they are site"),
    ):
        set_up(grid, make_config(2))


def test_setup_names_the_site_and_the_column_that_its_data_lacks(tmp_path):
    for site, header in (("a", "age,ill"), ("b", "years,ill"), ("c", "age,ill")):
        (tmp_path / f"{site}.csv").write_text(f"{header}\n" + "40,0\n50,1\n" * 10)
    config = parse_config(
        '[data]\nsource = "csv"\nlabel = "ill"\nclasses = ["0", "1"]\nbounds = {age = [0, 120]}\n'
        '[partition]\nscheme = "natural"\nsites = 3\n'
        '[training]\nsampling = "poisson"\nsample_rate = 0.1\nlocal_steps = 1\n'
        'expected_batch_size = 2\n[privacy]\nunit = "record"\nnoise_multiplier = 2.0\n'
    )
    with (
        FilesGrid(tmp_path, CLIENT_APP, sites=3) as grid,
        pytest.raises(RunFailedError, match=r"schema: site 'b': data.bounds names 'age'"),
    ):
        set_up(grid, resolve(config), run_id="one")
