import tomllib

import numpy as np
import pytest
import tomli_w
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from clients.app import app
from clients.custody import create_custody
from fedtrain.canonical import to_canonical
from fedtrain.config import compute_digest, parse_config, to_tree
from fedtrain.data.preparation import fit_preparation
from fedtrain.data.shards import Shards
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.protocol import (
    CONFIG_DIGEST,
    CONFIG_TEXT,
    DESCRIPTION,
    LEDGER_LINE,
    PREPARATION_TEXT,
    RELEASE,
    SERVER_ROUND,
    SITE_NAME,
    STATISTICS_TEXT,
    WEIGHT,
)
from fedtrain.resolution import resolve
from simulations.flower import make_context, set_identity, set_message_id

OFF = "\n[secure_aggregation]\nmode = 'off'\n"
PLAIN = "[partition]\nsites = 3\n[model]\nname = 'logistic'" + OFF
PUBLIC = resolve(parse_config(PLAIN))
PRIVATE = """
[secure_aggregation]
mode = "off"
[partition]
sites = 3
[model]
name = "logistic"
[training]
sampling = "poisson"
sample_rate = 0.2
local_steps = 2
expected_batch_size = 80
[privacy]
unit = "record"
noise_multiplier = 1.0
"""


def make_preparation(config) -> str:
    return to_canonical(fit_preparation([], config, Shards.open(config).public).to_json())


def make_message(text=PLAIN, kind="train", vector=None, **changes) -> Message:
    set_identity()
    config = resolve(parse_config(text))
    record = {
        CONFIG_TEXT: to_canonical(to_tree(config)),
        CONFIG_DIGEST: compute_digest(config),
        PREPARATION_TEXT: make_preparation(PUBLIC),
        SERVER_ROUND: 1,
    } | changes
    vector = np.zeros(650, np.float32) if vector is None else vector
    content = RecordDict(
        {
            "arrays": ArrayRecord({"parameters": Array(vector)}),
            "config": ConfigRecord({k: v for k, v in record.items() if v is not None}),
        }
    )
    message = Message(content, dst_node_id=2, message_type=kind)
    set_message_id(message, "1")
    return message


def ask(message, site=0, randomness="simulated", **node_config):
    config = {"partition-id": site, "randomness": randomness} | node_config
    return app(message, make_context(2, config, {}))


def read_vector(reply) -> np.ndarray:
    return reply.content.array_records["arrays"]["parameters"].numpy()


def test_describe_names_the_site_and_sums_what_the_preparation_needs():
    record = ask(make_message(kind="query.describe"), site=1).content[DESCRIPTION]
    assert record[SITE_NAME] == "site-01"
    assert record[STATISTICS_TEXT]


def test_describe_sums_nothing_under_privacy():
    record = ask(make_message(PRIVATE, "query.describe")).content[DESCRIPTION]
    assert record[STATISTICS_TEXT] == ""


def test_train_answers_an_update_its_weight_and_its_ledger_line():
    reply = ask(make_message())
    assert read_vector(reply).shape == (650,)
    assert reply.content["metrics"][WEIGHT] > 100
    entry = LedgerEntry.from_json(reply.content[RELEASE][LEDGER_LINE])
    assert (entry.site, entry.round, entry.mechanism) == ("site-00", 1, "none")


def test_private_train_releases_no_record_count_and_its_mechanism():
    reply = ask(make_message(PRIVATE))
    assert reply.content["metrics"][WEIGHT] == 1
    entry = LedgerEntry.from_json(reply.content[RELEASE][LEDGER_LINE])
    assert entry.mechanism == "poisson_sampled_gaussian"
    assert (entry.noise_multiplier, entry.steps, entry.expected_batch_size) == (1.0, 2, 80.0)


def test_simulated_site_repeats_its_noise_for_the_same_round_only():
    first, again = ask(make_message(PRIVATE)), ask(make_message(PRIVATE))
    other = ask(make_message(PRIVATE, **{SERVER_ROUND: 2}))
    np.testing.assert_array_equal(read_vector(first), read_vector(again))
    assert not np.array_equal(read_vector(first), read_vector(other))


FAMILY = {
    "folds": ("[data]\nfolds = 3\nfold = {}\n", 0, 1),
    "sites": ("[partition]\nleave_out = ['site-0{}']\n", 1, 2),
    "trials": ("[run]\ntrial = {}\n", 0, 1),
}


@pytest.mark.parametrize("family", FAMILY)
def test_runs_that_are_accounted_together_do_not_share_their_noise(family):
    keys, *numbers = FAMILY[family]
    loud = PRIVATE.replace("noise_multiplier = 1.0", "noise_multiplier = 1e4")
    found = []
    for number in (numbers[0], *numbers):
        tables = tomllib.loads(loud)
        for name, table in tomllib.loads(keys.format(number)).items():
            tables[name] = tables.get(name, {}) | table
        found.append(read_vector(ask(make_message(tomli_w.dumps(tables)))))
    assert np.array_equal(found[0], found[1])
    assert abs(np.corrcoef(found[1], found[2])[0, 1]) < 0.2  # and not 1, but for the records


def test_real_site_draws_noise_that_no_message_can_repeat():
    replies = [ask(make_message(PRIVATE), randomness="") for _ in range(2)]
    assert not np.array_equal(*(read_vector(reply) for reply in replies))


def test_message_cannot_make_a_real_site_use_the_seed():
    message = make_message(PRIVATE, randomness="simulated")
    replies = [ask(message, randomness="") for _ in range(2)]
    assert not np.array_equal(*(read_vector(reply) for reply in replies))


DRAWN = (
    PRIVATE.replace('"logistic"', '"mlp"\ndropout = 0.5')
    .replace("sample_rate = 0.2", "sample_rate = 1.0")
    .replace("noise_multiplier = 1.0", "noise_multiplier = 0.0")
)


@pytest.mark.parametrize(("randomness", "repeats"), [("", False), ("simulated", True)])
def test_units_left_out_at_a_real_site_under_privacy_follow_from_no_public_seed(
    randomness, repeats
):
    vector = np.random.default_rng(0).normal(0, 0.1, 2410).astype(np.float32)
    message = make_message(DRAWN, vector=vector)  # all records, no noise: what is left out decides
    replies = [ask(message, randomness=randomness) for _ in range(2)]
    assert np.array_equal(*(read_vector(reply) for reply in replies)) is repeats


def test_evaluate_answers_sums_for_validation_and_test():
    arrays = ask(make_message(kind="evaluate")).content.array_records["arrays"]
    assert len(arrays["validation-sums"].numpy()) == 101
    assert len(arrays["test-sums"].numpy()) > 1000


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({CONFIG_TEXT: None}, id="no config"),
        pytest.param({CONFIG_DIGEST: "0" * 64}, id="another digest"),
        pytest.param({PREPARATION_TEXT: None}, id="no preparation"),
        pytest.param({SERVER_ROUND: None}, id="no round"),
        pytest.param({"vector": np.zeros(649, np.float32)}, id="too short"),
        pytest.param({"vector": np.zeros(650)}, id="float64"),
        pytest.param({"vector": np.full(650, np.nan, np.float32)}, id="not finite"),
    ],
)
def test_unusable_message_is_answered_by_a_public_code(changes):
    reply = ask(make_message(**changes))
    assert reply.error.code == 104
    assert "not fitting" in reply.error.reason


def test_error_reply_says_nothing_of_the_site():
    text = PLAIN + "\n[data]\nsource = 'csv'\npath = '/secret/patients'\nlabel = 'x'"
    reply = ask(make_message(text))
    assert reply.error.code in (101, 102)
    assert "secret" not in reply.error.reason


@pytest.mark.parametrize(("text", "refused"), [(PRIVATE, True), (PLAIN, False)])
def test_site_tries_a_model_of_somebodys_own_before_it_trains_under_privacy(text, refused, caplog):
    own = text.replace('"logistic"', '"tests.clients.mixing:build"')
    own = own.replace("'logistic'", "'tests.clients.mixing:build'")
    assert ask(make_message(own), randomness="").has_error() is refused
    assert ("change with the other records" in caplog.text) is refused


def test_site_that_the_data_does_not_have_is_refused():
    assert ask(make_message(), site=3).error.code == 101


def test_deployed_site_attacks_nobody(caplog):
    text = PLAIN + "\n[attackers]\nshare = 0.4\nkind = 'label_flip'\n"
    assert not ask(make_message(text)).has_error()
    assert ask(make_message(text), randomness="system").has_error()
    assert "this site attacks nobody" in caplog.text


@pytest.mark.parametrize("own", [True, False])
def test_run_does_not_choose_the_file_of_a_site_that_has_a_folder(tmp_path, caplog, own):
    """Its records are what the site says, not whatever file of the site's a run names."""
    (tmp_path / "other.csv").write_text("x,label,site\n" + "1,a,s\n2,b,s\n" * 30)
    create_custody(tmp_path / "site", "anna")
    text = f"[data]\nsource = 'csv'\nlabel = 'label'\npath = '{tmp_path / 'other.csv'}'\n"
    message = make_message(text + OFF, **{PREPARATION_TEXT: "{}"})
    named = {"data-path": str(tmp_path / "other.csv")} if own else {}
    ask(message, randomness="", **{"site-dir": str(tmp_path / "site")}, **named)
    assert ("set data_path in agent.toml" in caplog.text) is not own


def test_update_is_zero_where_a_layer_is_local(tmp_path):
    text = PLAIN + "\n[personalisation]\nlocal_layers = ['*bias']\n"
    sent = read_vector(ask(make_message(text), **{"kept-dir": str(tmp_path)}))
    plain = read_vector(ask(make_message()))
    assert (sent[-10:] == 0).all()
    assert (plain[-10:] != 0).all()
    assert (sent[:-10] == plain[:-10]).all()


def test_scaffold_needs_the_control_variate(tmp_path):
    text = PLAIN + "\n[federation]\nstrategy = 'SCAFFOLD'\n[training]\nlocal_steps = 2\n"
    assert ask(make_message(text), **{"kept-dir": str(tmp_path)}).has_error()
    message = make_message(text)
    message.content["arrays"]["control"] = Array(np.zeros(650, np.float32))
    assert not ask(message, **{"kept-dir": str(tmp_path)}).has_error()
