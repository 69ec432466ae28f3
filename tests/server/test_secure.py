"""Secure aggregation over the grid: what comes out, what the coordinator holds, what is refused."""

import json

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message

from clients.app import app
from clients.runtime import forget_runs
from fedtrain.config import parse_config
from fedtrain.protocol import ARRAYS, INTERNAL_ERROR, METRICS, RELEASE, SECAGG, SECAGG_MESSAGE
from fedtrain.resolution import resolve
from fedtrain.runs import RunDirectory
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.messages import AdvertisementList, MaskedVector, SignedRoster, SurvivorSet
from fedtrain.secagg.transcript import verify_transcript
from server.app import run_federation
from server.flower import CohortGrid
from simulations.flower import make_context
from simulations.grid import InProcessGrid

TEXT = """
[partition]
sites = 5
[model]
name = "logistic"
[federation]
rounds = 2
"""
PLAIN_TEXT = TEXT + "[secure_aggregation]\nmode = 'arithmetic'\n"


class Watching(CohortGrid):
    """Notes every message and reply; a function may change either (None loses a reply)."""

    def __init__(self, grid, change_request=None, change_reply=None):
        super().__init__(grid, list(grid.get_node_ids()))
        self.replies = []
        self._change_request = change_request or (lambda message: message)
        self._change_reply = change_reply or (lambda reply: reply)

    def send_and_receive(self, messages, *, timeout=None):
        changed = [self._change_request(message) for message in messages]
        for reply in self._grid.send_and_receive(changed, timeout=timeout):
            self.replies.append(reply)
            if (kept := self._change_reply(reply)) is not None:
                yield kept


def run(path, text=TEXT, *overrides, change_request=None, change_reply=None):
    forget_runs()  # a site that has answered these rounds answers no other attempt of them
    config = resolve(parse_config(text, overrides))
    directory = RunDirectory.create(path, config)
    with InProcessGrid("clients.app:app", sites=5) as grid:
        watching = Watching(grid, change_request, change_reply)
        run_federation(watching, directory)
    return directory, watching


def get_stage(message: Message) -> str:
    return message.metadata.message_type.rpartition("secagg_")[2]


def is_site(message: Message, *sites: int) -> bool:
    ids = {message.metadata.src_node_id, message.metadata.dst_node_id}
    return bool(ids & {site + 2 for site in sites})


def decline(reply: Message) -> Message:
    error = Message(Error(code=INTERNAL_ERROR[0], reason="no"), reply_to=reply)
    error.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id
    return error


def read_vector(directory) -> np.ndarray:
    return directory.load_checkpoint()["parameters"]


def test_protocol_gives_the_bytes_of_the_plain_sum(tmp_path):
    protocol, _ = run(tmp_path / "protocol")
    plain, _ = run(tmp_path / "plain", PLAIN_TEXT)
    assert read_vector(protocol).tobytes() == read_vector(plain).tobytes()


def test_sum_is_close_to_the_average_without_secure_aggregation(tmp_path):
    protocol, _ = run(tmp_path / "protocol")
    off, _ = run(tmp_path / "off", TEXT, "secure_aggregation.mode=off")
    np.testing.assert_allclose(read_vector(protocol), read_vector(off), atol=2e-5)
    for line, other in zip(protocol.read_metrics(), off.read_metrics(), strict=True):
        assert line["test_accuracy"] == pytest.approx(other["test_accuracy"], abs=0.006)
        assert line["train_loss"] == pytest.approx(other["train_loss"], abs=1e-3)


def test_coordinator_receives_no_array_metric_or_weight_of_a_site(tmp_path):
    _, watching = run(tmp_path / "run")
    replies = [r for r in watching.replies if "secagg" in r.metadata.message_type]
    assert len(replies) == 2 * 2 * 5 * 5  # rounds, sums, stages, sites
    for reply in replies:
        assert set(reply.content) <= {SECAGG, RELEASE}
        assert set(reply.content.config_records[SECAGG]) == {SECAGG_MESSAGE}


def test_masked_vectors_look_uniform_and_differ_between_sites(tmp_path):
    _, watching = run(tmp_path / "run")
    vectors = [
        np.frombuffer(decode(reply.content[SECAGG][SECAGG_MESSAGE], MaskedVector).words, "<u4")
        for reply in watching.replies
        if get_stage(reply) == "mask"
    ]
    for vector in vectors:
        assert np.mean(vector / 2**32) == pytest.approx(0.5, abs=5 / np.sqrt(12 * len(vector)))
    assert abs(np.corrcoef(vectors[0], vectors[1])[0, 1]) < 0.25


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_site_refuses_to_answer_in_plain_under_secure_aggregation(tmp_path, kind):
    seen = []

    def note(message):
        if get_stage(message) == "advertise" and not seen:
            seen.append(message)
        return message

    run(tmp_path / "run", change_request=note)
    content = seen[0].content
    message = Message(content, dst_node_id=2, message_type=kind)
    reply = app(message, make_context(2, {"partition-id": 0, "randomness": "simulated"}, {}))
    assert reply.error.code == 103


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "sign", "unmask"])
def test_one_site_may_drop_out_at_any_stage(tmp_path, stage):
    directory, _ = run(
        tmp_path / "run",
        change_reply=lambda r: None if get_stage(r) == stage and is_site(r, 1) else r,
    )
    expected = 5 if stage in ("sign", "unmask") else 4
    assert [line["survivors"] for line in directory.read_metrics()] == [expected, expected]
    assert all("void" not in line for line in directory.read_metrics())


def test_sum_without_a_site_equals_the_plain_sum_without_it(tmp_path):
    def lose(stage):
        return lambda r: None if get_stage(r) == stage and is_site(r, 1) else r

    protocol, _ = run(tmp_path / "protocol", change_reply=lose("mask"))
    plain, _ = run(tmp_path / "plain", PLAIN_TEXT, change_reply=lose("train.encode_plainly"))
    assert read_vector(protocol).tobytes() == read_vector(plain).tobytes()


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "sign", "unmask"])
def test_round_below_the_threshold_is_void_and_the_run_goes_on(tmp_path, stage):
    directory, watching = run(
        tmp_path / "run",
        change_reply=lambda r: decline(r) if get_stage(r) == stage and is_site(r, 1, 3) else r,
    )
    lines = directory.read_metrics()
    assert directory.state.status == "finished"
    assert [line["survivors"] for line in lines] == [0, 0]
    assert all("below the threshold" in line["void"] or "shares" in line["void"] for line in lines)
    if stage != "unmask":
        assert not [r for r in watching.replies if get_stage(r) == "unmask"]


def test_transcript_of_every_sum_verifies_against_the_roster(tmp_path):
    directory, _ = run(tmp_path / "run")
    roster = json.loads((directory.path / "roster.json").read_text())
    signed = decode(bytes.fromhex(roster["roster"]), SignedRoster)
    root = bytes.fromhex(roster["root_public_key"])
    lines = (directory.path / "transcript.jsonl").read_text().splitlines()
    contexts = [verify_transcript(json.loads(line), signed, root) for line in lines]
    purposes = [context.run.rpartition("/")[2] for context in contexts]
    assert purposes == ["train", "evaluate"] * 2
    assert [context.round for context in contexts] == [1, 1, 2, 2]


def tamper(stage, kind, change):
    """Return a function that changes the protocol's message to one site in one stage."""

    def change_request(message):
        if get_stage(message) != stage or not is_site(message, 1):
            return message
        record = message.content.config_records[SECAGG]
        altered = change(decode(record[SECAGG_MESSAGE], kind))
        content = type(message.content)(dict(message.content))
        content[SECAGG] = ConfigRecord(dict(record) | {SECAGG_MESSAGE: bytes(encode(altered))})
        message.content = content
        return message

    return change_request


def test_site_that_is_shown_another_model_takes_no_part(tmp_path):
    from server.flower import to_array_record

    def change_request(message):
        if get_stage(message) == "advertise" and is_site(message, 1):
            content = type(message.content)(dict(message.content))
            content[ARRAYS] = to_array_record(np.ones(650, np.float32))
            message.content = content
        return message

    directory, watching = run(tmp_path / "run", change_request=change_request)
    assert [line["survivors"] for line in directory.read_metrics()] == [4, 4]
    refusals = [r for r in watching.replies if r.has_error()]
    assert all(is_site(reply, 1) for reply in refusals)
    assert {reply.error.reason for reply in refusals} == {"context"}


def test_site_that_is_shown_fewer_peers_takes_no_part(tmp_path):
    def shorten(listed):
        return AdvertisementList(listed.advertisements[:2])

    change = tamper("share", AdvertisementList, shorten)
    directory, watching = run(tmp_path / "run", change_request=change)
    assert [line["survivors"] for line in directory.read_metrics()] == [4, 4]
    assert all(is_site(r, 1) for r in watching.replies if r.has_error())


def test_site_that_is_shown_another_survivor_set_reveals_nothing(tmp_path):
    def drop(offered):
        return SurvivorSet(offered.survivors[:-1])

    change = tamper("sign", SurvivorSet, drop)
    _, watching = run(tmp_path / "run", change_request=change)
    unmasked = [r for r in watching.replies if get_stage(r) == "unmask" and is_site(r, 1)]
    assert not any(r.has_content() for r in unmasked)


def test_ledger_holds_the_digest_of_what_left_the_site(tmp_path):
    import hashlib

    directory, watching = run(tmp_path / "run")
    sent = {
        hashlib.sha256(decode(r.content[SECAGG][SECAGG_MESSAGE], MaskedVector).words).hexdigest()
        for r in watching.replies
        if get_stage(r) == "mask"
    }
    entries = directory.read_ledger()
    assert len(entries) == 10
    assert {entry.update_digest for entry in entries} <= sent


def test_replies_hold_no_metric_record(tmp_path):
    _, watching = run(tmp_path / "run")
    secure = [r for r in watching.replies if "secagg" in r.metadata.message_type]
    assert not any(METRICS in reply.content for reply in secure)


def test_cohort_below_the_minimum_is_not_asked(tmp_path):
    directory, watching = run(
        tmp_path / "run", TEXT, "federation.site_sample_rate=0.2", "federation.rounds=4"
    )
    lines = directory.read_metrics()
    small = [line for line in lines if 0 < line["cohort"] < 3]
    assert small
    assert all("below min_cohort" in line["void"] for line in small)
    asked = [r for r in watching.replies if get_stage(r) == "advertise"]
    assert len(asked) == 5 * 4 + sum(line["cohort"] for line in lines if line["cohort"] >= 3)


def test_site_that_is_shown_another_preparation_takes_no_part(tmp_path):
    """As Pasquini et al. do with the model: records of all but one site prepared to nothing."""

    def change_request(message):
        if get_stage(message) == "advertise" and is_site(message, 1):
            content = type(message.content)(dict(message.content))
            record = ConfigRecord(dict(content.config_records["config"]))
            record["preparation-text"] = str(record["preparation-text"]).replace("16.0", "1e9")
            content["config"] = record
            message.content = content
        return message

    directory, watching = run(tmp_path / "run", change_request=change_request)
    assert [line["survivors"] for line in directory.read_metrics()] == [4, 4]
    refusals = [r for r in watching.replies if r.has_error()]
    assert {reply.error.reason for reply in refusals} == {"context"}
    assert all(is_site(reply, 1) for reply in refusals)


def test_run_that_changes_its_preparation_is_left_by_every_site(tmp_path):
    asked = []

    def change_request(message):
        if get_stage(message) == "advertise":
            asked.append(message.content)
        return message

    run(tmp_path / "run", change_request=change_request)
    content = asked[0]
    record = ConfigRecord(dict(content.config_records["config"]))
    record["preparation-text"] = str(record["preparation-text"]).replace("16.0", "17.0")
    changed = type(content)(dict(content))
    changed["config"] = record
    message = Message(changed, dst_node_id=2, message_type="train.secagg_advertise")
    node_config = {"partition-id": 0, "randomness": "simulated"}
    assert app(message, make_context(2, node_config, {})).error.reason == "context"
