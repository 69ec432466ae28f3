"""What a site keeps of a run from round to round."""

import numpy as np
import pytest
from flwr.app import ConfigRecord

from clients.attempts import _pack, _unpack
from clients.custody import KEPT_FOLDER, create_custody
from clients.kept import Kept, open_kept
from clients.site import Site
from fedtrain.aggregation import compute_model_digest
from fedtrain.errors import SiteError
from fedtrain.protocol import SERVER_ROUND


def make(value: float) -> dict[str, np.ndarray]:
    return {"control": np.full(3, value, np.float32)}


def test_round_begins_from_what_was_kept_before_it_and_not_from_its_own(tmp_path):
    kept = Kept(tmp_path / "kept", 7)
    assert kept.load(before=1) == {}
    kept.save(2, make(2.0))
    kept.save(5, make(5.0))
    assert kept.load(before=5)["control"][0] == 2.0
    assert kept.load(before=6)["control"][0] == 5.0


def test_two_rounds_are_kept_so_that_the_last_can_be_run_again(tmp_path):
    kept = Kept(tmp_path, 0)
    for round_ in (1, 2, 3):
        kept.save(round_, make(round_))
    assert sorted(path.name[7:14] for path in tmp_path.iterdir()) == ["0000002", "0000003"]


def test_sites_and_runs_do_not_mix(tmp_path):
    Kept(tmp_path, 0).save(1, make(1.0))
    assert Kept(tmp_path, 1).load(before=9) == {}
    open_kept(tmp_path, "a", 0).save(1, make(1.0))
    assert open_kept(tmp_path, "b", 0).load(before=9) == {}


def test_damaged_file_is_an_error_and_not_a_beginning(tmp_path):
    kept = Kept(tmp_path, 0)
    kept.save(1, make(1.0))
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"torn")
    with pytest.raises(SiteError, match="cannot be read"):
        kept.load(before=2)


def test_deployed_site_keeps_it_in_its_own_folder(tmp_path):
    custody = create_custody(tmp_path / "site", "a")
    site = Site(None, 0, simulated=False, custody=custody, run="run 1")  # type: ignore[arg-type]
    site.kept.save(1, make(1.0))
    assert len(list((tmp_path / "site" / KEPT_FOLDER).rglob("*.safetensors"))) == 1
    with pytest.raises(SiteError, match="site-dir"):
        Site(None, 0, simulated=False).kept  # type: ignore[arg-type] # noqa: B018


def test_announcement_of_model_and_control_survives_the_process():
    both = np.arange(6, dtype=np.float32).reshape(2, 3)
    record, read = _unpack(_pack(ConfigRecord({SERVER_ROUND: 4}), both), rows=2)
    assert record[SERVER_ROUND] == 4
    assert compute_model_digest(read) == compute_model_digest(both)


def test_another_control_has_another_digest():
    both = np.zeros((2, 3), np.float32)
    other = both.copy()
    other[1, 0] = 1
    assert compute_model_digest(both) != compute_model_digest(other)
    assert compute_model_digest(both) != compute_model_digest(both[0])
