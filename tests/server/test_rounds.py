"""The round loop against sites that misbehave, over a grid that answers from a table."""

import json

import numpy as np
import pytest
from flwr.app import Error, Message

from fedtrain.config import parse_config
from fedtrain.errors import RunFailedError
from fedtrain.protocol import ARRAYS, INTERNAL_ERROR, PARAMETERS
from fedtrain.resolution import resolve
from fedtrain.runs import RunDirectory
from server.app import run_federation
from server.flower import CohortGrid, to_array_record
from simulations.grid import InProcessGrid

TEXT = """
[partition]
sites = 3
[model]
name = "logistic"
[federation]
rounds = 2
[secure_aggregation]
mode = "off"
"""


class Tampering(CohortGrid):
    """Lets a function change each train reply; None loses it."""

    def __init__(self, grid, change):
        super().__init__(grid, list(grid.get_node_ids()))
        self._change = change

    def send_and_receive(self, messages, *, timeout=None):
        for reply in self._grid.send_and_receive(messages, timeout=timeout):
            if reply.metadata.message_type != "train":
                yield reply
            elif (changed := self._change(reply)) is not None:
                yield changed


def replace_vector(reply: Message, value: float) -> Message:
    size = len(reply.content[ARRAYS][PARAMETERS].numpy())
    reply.content[ARRAYS] = to_array_record(np.full(size, value, np.float32))
    return reply


def make_error_reply(reply: Message, public: tuple[int, str]) -> Message:
    """Turn a site's reply into its refusal."""
    error = Message(Error(code=public[0], reason=public[1]), reply_to=reply)
    error.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id
    return error


def is_site(reply: Message, site: int) -> bool:
    return reply.metadata.src_node_id == site + 2


def run(tmp_path, change, *overrides):
    config = resolve(parse_config(TEXT, overrides))
    directory = RunDirectory.create(tmp_path / "run", config)
    with InProcessGrid("clients.app:app", sites=3) as grid:
        run_federation(Tampering(grid, change), directory)
    return directory


def test_update_that_is_not_finite_is_dropped_and_its_release_counted(tmp_path):
    directory = run(tmp_path, lambda r: replace_vector(r, np.nan) if is_site(r, 1) else r)
    assert [line["survivors"] for line in directory.read_metrics()] == [2, 2]
    assert np.isfinite(directory.load_checkpoint()["parameters"]).all()
    assert sum(entry.site == "site-01" for entry in directory.read_ledger()) == 2


def test_lost_reply_does_not_stop_the_run(tmp_path):
    directory = run(tmp_path, lambda r: None if is_site(r, 2) else r)
    assert [line["survivors"] for line in directory.read_metrics()] == [2, 2]


def test_site_whose_reply_is_lost_is_counted_as_if_it_had_released(tmp_path):
    directory = run(tmp_path, lambda r: None if is_site(r, 2) else r)
    lost = [entry for entry in directory.read_ledger() if entry.site == "site-02"]
    assert [entry.round for entry in lost] == [1, 2]
    assert all(entry.update_digest is None for entry in lost)
    assert len(directory.read_ledger()) == 6


def test_site_that_declines_in_words_has_released_nothing(tmp_path):
    def decline(reply):
        return make_error_reply(reply, INTERNAL_ERROR) if is_site(reply, 1) else reply

    directory = run(tmp_path, decline)
    assert {entry.site for entry in directory.read_ledger()} == {"site-00", "site-02"}
    sites = {s["site"]: s for s in json.loads((directory.path / "sites.json").read_text())}
    assert sites["site-01"]["rounds"] == 0


def test_round_below_min_survivors_changes_nothing(tmp_path):
    directory = run(tmp_path, lambda r: r if is_site(r, 0) else None, "federation.min_survivors=2")
    lines = directory.read_metrics()
    assert [line["survivors"] for line in lines] == [1, 1]
    assert lines[0]["val_loss"] == lines[1]["val_loss"]
    assert "train_loss" not in lines[0]


def test_round_without_a_reply_is_void_and_the_run_goes_on(tmp_path):
    directory = run(tmp_path, lambda r: None)
    assert directory.state.status == "finished"
    assert [line["survivors"] for line in directory.read_metrics()] == [0, 0]


def test_global_model_that_overflows_ends_the_run_with_its_cause(tmp_path):
    with pytest.raises(RunFailedError, match=r"not finite after round 1.*learning_rate"):
        run(
            tmp_path,
            lambda r: replace_vector(r, 3e38),
            "federation.strategy=FedAvgM",
            "federation.strategy_options.server_learning_rate=100.0",
        )
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state["round"] == 0


def test_more_sites_than_the_config_has_end_the_run_at_its_start(tmp_path):
    config = resolve(parse_config(TEXT))
    directory = RunDirectory.create(tmp_path / "run", config)
    with (
        InProcessGrid("clients.app:app", sites=4) as grid,
        pytest.raises(RunFailedError, match="4 sites are connected"),
    ):
        run_federation(grid, directory)
