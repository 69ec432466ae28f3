import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.protocol import ARRAYS, LEDGER_LINE, METRICS, PARAMETERS, RELEASE, TRAIN_LOSS, WEIGHT
from server.collect import Tally, fold, sift
from simulations.flower import set_identity, set_message_id

NAMES = {2: "a", 3: "b", 4: "c"}


def make_request(node_id: int) -> Message:
    set_identity()
    message = Message(RecordDict(), dst_node_id=node_id, message_type="train")
    set_message_id(message, str(node_id))
    return message


def make_reply(
    node_id=2, vector=(1.0, 2.0), weight=1.0, loss=0.5, site=None, round_=1, **changes
) -> Message:
    entry = LedgerEntry(
        site=site or NAMES[node_id], round=round_, mechanism="none", update_digest="0" * 64
    )
    records = {
        ARRAYS: ArrayRecord({PARAMETERS: Array(np.array(vector, np.float32))}),
        METRICS: MetricRecord({WEIGHT: weight, TRAIN_LOSS: loss}),
        RELEASE: ConfigRecord({LEDGER_LINE: entry.to_json()}),
    }
    content = RecordDict({k: v for k, v in (records | changes).items() if v is not None})
    return Message(content, reply_to=make_request(node_id))


def run_sift(*replies, equal=False):
    tally = Tally()
    pairs = list(sift(replies, tally, names=NAMES, round_=1, size=2, equal=equal))
    return pairs, tally


def test_usable_replies_pass_and_are_counted():
    pairs, tally = run_sift(make_reply(2), make_reply(3))
    assert [vector.tolist() for _, vector in pairs] == [[1, 2], [1, 2]]
    assert tally.survivors == 2
    assert tally.bytes_up == 16
    assert [entry.site for entry in tally.entries] == ["a", "b"]


@pytest.mark.parametrize(
    "reply",
    [
        {"vector": (1.0,)},
        {"vector": (np.nan, 1.0)},
        {"vector": (np.inf, 1.0)},
        {"weight": 0.0},
        {"weight": -1.0},
        {"weight": float("nan")},
        {"weight": 1e12},
        {"loss": float("inf")},
        {METRICS: None},
        {ARRAYS: None},
        {ARRAYS: ArrayRecord({PARAMETERS: Array(np.zeros(2))})},
        {ARRAYS: ArrayRecord({"other": Array(np.zeros(2, np.float32))})},
    ],
    ids=str,
)
def test_unusable_update_is_dropped_but_its_release_is_counted(reply):
    pairs, tally = run_sift(make_reply(2, **reply), make_reply(3))
    assert len(pairs) == tally.survivors == 1
    assert [name for name, _ in tally.dropped] == ["a"]
    assert [entry.site for entry in tally.entries] == ["a", "b"]


@pytest.mark.parametrize(
    "release",
    [
        None,
        ConfigRecord(),
        ConfigRecord({LEDGER_LINE: "{"}),
        ConfigRecord({LEDGER_LINE: "x" * 9999}),
    ],
    ids=["missing", "empty", "no entry", "too long"],
)
def test_reply_without_a_readable_ledger_line_is_dropped(release):
    pairs, tally = run_sift(make_reply(2, **{RELEASE: release}))
    assert not pairs
    assert not tally.entries


def test_reply_of_another_round_is_dropped():
    pairs, tally = run_sift(make_reply(2, round_=2), make_reply(3))
    assert len(pairs) == 1
    assert tally.dropped == [("a", "the reply's ledger line is of round 2, not 1")]


def test_ledger_line_of_another_site_is_refused():
    _, tally = run_sift(make_reply(2, site="b"))
    assert tally.survivors == 0
    assert "site 'b'" in tally.dropped[0][1]


def test_weights_must_be_one_where_they_are_equal():
    _, tally = run_sift(make_reply(2, weight=7), make_reply(3, weight=1), equal=True)
    assert tally.survivors == 1
    assert "equal to 1" in tally.dropped[0][1]


def test_error_reply_is_dropped_with_its_public_reason():
    reply = Message(Error(code=102, reason="data: no"), reply_to=make_request(4))
    _, tally = run_sift(reply)
    assert tally.dropped == [("c", "data: no")]


def test_fold_is_the_weighted_average():
    pairs, _ = run_sift(make_reply(2, (0.0, 1.0), 1, 1.0), make_reply(3, (4.0, 3.0), 3, 3.0))
    reply = fold(pairs, size=2)
    assert reply.content[ARRAYS][PARAMETERS].numpy().tolist() == [3.0, 2.5]
    assert reply.content[METRICS] == {WEIGHT: 4.0, TRAIN_LOSS: 2.5}


def test_fold_of_nothing_is_nothing():
    assert fold([], size=2) is None


def test_fold_of_many_small_updates_keeps_float32_precision():
    vector = np.full(2, 0.1, np.float32)
    pairs, _ = run_sift(*(make_reply(2, tuple(vector), 1) for _ in range(3000)))
    average = fold(pairs, size=2).content[ARRAYS][PARAMETERS].numpy()
    np.testing.assert_array_equal(average, vector)
