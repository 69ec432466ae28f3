"""Site-level privacy over the grid: what leaves a site, and attacks with their controls."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message

import clients.secure
import fedtrain.aggregation
import server.secure
from clients.app import app
from clients.runtime import forget_runs
from fedtrain.config import parse_config
from fedtrain.plan import build_site_plan
from fedtrain.privacy.discrete_gaussian import draw_discrete_gaussian
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.protocol import (
    ARRAYS,
    CONFIG,
    LEDGER_LINE,
    PARAMETERS,
    RELEASE,
    SECAGG,
    SECAGG_MESSAGE,
    SECAGG_PURPOSE,
    SERVER_ROUND,
    UPDATE_NORM,
    WORDS,
)
from fedtrain.resolution import resolve
from fedtrain.runs import RunDirectory
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.messages import MaskedVector, RoundContext
from fedtrain.training_vector import TrainingVector
from server.app import run_federation
from server.flower import read_array
from simulations.flower import make_context
from simulations.grid import InProcessGrid
from tests.server.test_secure import Watching, decline, get_stage, is_site

SITES = 6
PLAIN = "secure_aggregation.mode=arithmetic"
TEXT = """
[data]
source = "npz"
path = "{path}"
preparation = "none"
classes = ["0", "1"]
validation_fraction = 0
test_fraction = 0.2
[partition]
scheme = "natural"
sites = 6
[model]
name = "logistic"
[training]
local_epochs = 3
[federation]
rounds = 1
[privacy]
unit = "site"
[privacy.site]
noise_multiplier = 1.0
max_update_norm = 0.25
"""
ADAPTIVE = TEXT.replace("0.25", "8.0") + 'clipping = "adaptive"\ninitial_update_norm = 0.425\n'
# The scale that follows from this clip is that of the first: the update is as much larger.
OTHER_CLIP = 0.8
NOISE_ONLY = """
[partition]
sites = 10
[model]
hidden = [2048]
[training]
learning_rate = 1e-12
local_steps = 1
[federation]
rounds = 1
[privacy]
unit = "site"
[privacy.site]
noise_multiplier = 1.5
max_update_norm = 2.0
"""


def write_data(path, *, change=lambda site, x, y: (x, y)):
    """Write six sites' records; a function may exchange a site's."""
    random = np.random.default_rng(0)
    parts = []
    for site in range(SITES):
        x = random.normal(size=(15, 4)).astype(np.float32)
        parts.append(change(site, x, (x[:, 0] > 0).astype(np.int64)))
    names = np.repeat([f"s{i}" for i in range(SITES)], [len(y) for _, y in parts])
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    np.savez(path, x=x, y=y, site=names)


def of_one_site(x, y):
    """Return a change of the records of site 2."""
    return lambda site, own_x, own_y: (x, y) if site == 2 else (own_x, own_y)


def run(path, text=TEXT, *overrides, sites=SITES, change_request=None, change_reply=None):
    forget_runs()
    if "{path}" in text and not (data := path.with_suffix(".npz")).exists():
        write_data(data)
    config = resolve(parse_config(text.replace("{path}", str(path.with_suffix(".npz"))), overrides))
    directory = RunDirectory.create(path, config)
    with InProcessGrid("clients.app:app", sites=sites) as grid:
        watching = Watching(grid, change_request, change_reply)
        run_federation(watching, directory)
    return directory, watching


@pytest.fixture(scope="module")
def run_unchanged(tmp_path_factory):
    """Return a function that returns the run on the data as it is, made once."""
    made = {}

    def run_once(*arguments):
        if arguments not in made:
            made[arguments] = run(tmp_path_factory.mktemp("one") / "one", *arguments)
        return made[arguments]

    return run_once


def read_words(watching):
    """Return each site's encoded vector, as mode arithmetic shows it."""
    return np.array(
        [
            read_array(reply.content.array_records[ARRAYS], WORDS, dtype="uint32")
            for reply in watching.replies
            if reply.has_content() and ARRAYS in reply.content and RELEASE in reply.content
        ]
    )


def measure_difference(first, second):
    """Return the L2 norm of the difference of two sums of the ring, `(m,)`."""
    return np.linalg.norm((first - second).view(np.int32).astype(np.float64))


def get_share(directory):
    return directory.read_ledger()[0].noise_share


# The noise in the sum of a real run


def run_noise(path, *, survivors):
    """Return the noise of a run's model in ring units, and what each site was to add."""
    start = []

    def note(message):
        if get_stage(message) == "advertise" and not start:
            start.append(read_array(message.content[ARRAYS], PARAMETERS, dtype="float32").copy())
        return message

    def lose(reply):
        return decline(reply) if get_stage(reply) == "mask" and is_site(reply, *lost) else reply

    lost = range(survivors, 10)
    directory, _ = run(path, NOISE_ONLY, sites=10, change_request=note, change_reply=lose)
    assert directory.read_metrics()[0]["survivors"] == survivors
    layout = TrainingVector(directory.config, size=len(start[0]), cohort=10)
    delta = (directory.load_checkpoint()[PARAMETERS] - start[0]).astype(np.float64)
    return delta * 10 * layout.encoding.scales["update"], layout.share, directory


def is_normal_of(sample, stddev):
    """Say whether a sample's deviation is within five standard errors of this one."""
    return abs(np.mean((sample / stddev) ** 2) - 1) < 5 * np.sqrt(2 / len(sample))


@pytest.fixture(scope="module")
def noise_of_fewest(tmp_path_factory):
    return run_noise(tmp_path_factory.mktemp("noise") / "run", survivors=7)


def test_sum_of_the_fewest_survivors_has_all_their_noise(noise_of_fewest):
    noise, share, _ = noise_of_fewest
    stddev = np.sqrt(7 * share.share_variance)
    assert is_normal_of(noise, stddev)
    for wrong in (2 / 3, 3 / 2, 0.98):
        assert not is_normal_of(noise * wrong, stddev)


def test_what_a_corrupt_survivor_leaves_is_the_claimed_noise(noise_of_fewest):
    """One of ten sites may side with the coordinator, and takes its own share off the sum."""
    noise, share, directory = noise_of_fewest
    name = directory.read_ledger()[0].site
    generator = SecureGenerator.from_seed(0, "noise share", name, 1)
    own = draw_discrete_gaussian(generator, len(noise), variance=share.share_variance)
    claimed = build_site_plan(directory.config).noise_multiplier * share.sensitivity
    assert is_normal_of(noise - own, claimed)
    assert not is_normal_of((noise - own) * 0.98, claimed)


def test_sum_of_all_sites_has_more_than_the_claimed_noise(tmp_path):
    noise, share, directory = run_noise(tmp_path / "run", survivors=10)
    claimed = build_site_plan(directory.config).noise_multiplier * share.sensitivity
    assert is_normal_of(noise, claimed * np.sqrt(10 / 6))


# A coordinator that shows one site another clip


def set_clip(message, clip):
    """Announce another clip with a message."""
    content = type(message.content)(dict(message.content))
    content[CONFIG] = ConfigRecord(dict(content.config_records[CONFIG]) | {UPDATE_NORM: clip})
    message.content = content
    return message


def give_another_clip(message):
    """Announce another clip to site 1 than to its peers."""
    if get_stage(message) == "advertise" and is_site(message, 1):
        return set_clip(message, OTHER_CLIP)
    return message


def test_site_that_is_shown_another_clip_takes_no_part(tmp_path):
    directory, watching = run(tmp_path / "run", ADAPTIVE, change_request=give_another_clip)
    assert directory.read_metrics()[0]["survivors"] == SITES - 1
    refusals = [reply for reply in watching.replies if reply.has_error()]
    assert {reply.error.reason for reply in refusals} == {"context"}
    assert all(is_site(reply, 1) for reply in refusals)


def test_other_clip_would_lift_a_site_above_the_noise_if_it_were_not_bound(tmp_path, monkeypatch):
    """The control: with the clip out of the model's digest the sum opens."""
    monkeypatch.setattr(fedtrain.aggregation, "bind_clip", lambda digest, clip: digest)
    directory, _ = run(tmp_path / "run", ADAPTIVE, change_request=give_another_clip)
    assert directory.read_metrics()[0]["survivors"] == SITES
    shares = {entry.site: entry.noise_share for entry in directory.read_ledger()}
    noise = np.sqrt(shares["s0"].shares * shares["s0"].share_variance)
    assert noise / shares["s0"].sensitivity == pytest.approx(1.0, rel=0.01)  # as claimed
    assert noise / shares["s1"].sensitivity < 0.6


def test_clip_above_the_configs_is_refused(tmp_path):
    def change(message):
        return set_clip(message, 8.1) if get_stage(message) == "advertise" else message

    directory, watching = run(tmp_path / "run", ADAPTIVE, change_request=change)
    assert directory.read_metrics()[0]["survivors"] == 0
    assert sum(reply.has_error() for reply in watching.replies) == SITES


# A coordinator that announces a lower threshold

ALL_NEEDED = "secure_aggregation.threshold=6"


def lose_one(reply):
    return decline(reply) if get_stage(reply) == "mask" and is_site(reply, 1) else reply


def test_threshold_below_the_configs_is_refused_by_every_site(tmp_path, monkeypatch):
    monkeypatch.setattr(server.secure, "get_threshold", lambda config, cohort: 5)
    directory, watching = run(tmp_path / "run", TEXT, ALL_NEEDED, change_reply=lose_one)
    assert "void" in directory.read_metrics()[0]
    assert not [reply for reply in watching.replies if get_stage(reply) == "mask"]
    reasons = {reply.error.reason for reply in watching.replies if reply.has_error()}
    assert reasons == {"threshold"}


def test_lower_threshold_would_open_a_sum_with_too_little_noise(tmp_path, monkeypatch):
    """The control: without the site's check five shares of noise stand where six are claimed."""
    monkeypatch.setattr(server.secure, "get_threshold", lambda config, cohort: 5)
    monkeypatch.setattr(clients.secure, "get_threshold", lambda config, cohort: 0)
    directory, _ = run(tmp_path / "run", TEXT, ALL_NEEDED, change_reply=lose_one)
    line = directory.read_metrics()[0]
    assert "void" not in line
    assert line["survivors"] == 5 < get_share(directory).shares == 6


# One site's records exchanged, all randomness as before

ZERO = of_one_site(np.zeros((15, 4), np.float32), np.zeros(15, np.int64))
FEW = of_one_site(np.zeros((5, 4), np.float32), np.ones(5, np.int64))
MANY = of_one_site(np.full((99, 4), 3.0, np.float32), np.ones(99, np.int64))
HUGE = of_one_site(np.full((15, 4), 1e18, np.float32), np.arange(15) % 2)
INFINITE = of_one_site(np.full((15, 4), 3e38, np.float32), np.arange(15) % 2)
NEIGHBOURS = {"zero": ZERO, "few": FEW, "many": MANY, "huge": HUGE, "infinite": INFINITE}


@pytest.mark.parametrize("text", [TEXT, ADAPTIVE], ids=["fixed", "adaptive"])
@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_exchanged_records_change_the_sum_by_no_more_than_is_claimed(
    run_unchanged, tmp_path, kind, text
):
    write_data(tmp_path / "other.npz", change=NEIGHBOURS[kind])
    (one, first), (_, second) = run_unchanged(text, PLAIN), run(tmp_path / "other", text, PLAIN)
    words, others = read_words(first), read_words(second)
    assert len(words) == len(others) == SITES
    # Training on infinite ones gives zeros in place of the update; others give another one.
    factor = 1 if (text, kind) == (TEXT, "infinite") else 2
    totals = (np.sum(vectors, axis=0, dtype=np.uint32) for vectors in (words, others))
    assert 0 < measure_difference(*totals) <= factor * get_share(one).sensitivity
    assert np.array_equal(np.delete(words, 2, axis=0), np.delete(others, 2, axis=0))


@pytest.mark.parametrize("kind", ["huge", "infinite"])
def test_site_of_wild_records_stays_in_the_sum(tmp_path, kind):
    write_data(tmp_path / "run.npz", change=NEIGHBOURS[kind])
    directory, watching = run(tmp_path / "run")
    assert directory.read_metrics()[0]["survivors"] == SITES
    assert not [reply for reply in watching.replies if reply.has_error()]


def test_without_site_level_privacy_a_site_of_wild_records_drops_out(tmp_path):
    """The control: who survives tells of its data."""
    write_data(tmp_path / "run.npz", change=INFINITE)
    text = TEXT[: TEXT.index("[privacy]")]
    directory, _ = run(tmp_path / "run", text)
    assert directory.read_metrics()[0]["survivors"] == SITES - 1


def list_sizes(watching):
    """Return who sent what, and how many bytes of it."""
    sizes = []
    for reply in watching.replies:
        if SECAGG in reply.content:
            line = reply.content.get(RELEASE, {LEDGER_LINE: ""})[LEDGER_LINE]
            size = len(reply.content[SECAGG][SECAGG_MESSAGE]), len(line)
            sizes.append((reply.metadata.src_node_id, get_stage(reply), *size))
    return sizes


@pytest.mark.parametrize("kind", ["few", "many", "infinite"])
def test_sizes_and_divisor_do_not_depend_on_the_records(run_unchanged, tmp_path, kind):
    write_data(tmp_path / "other.npz", change=NEIGHBOURS[kind])
    (one, first), (other, second) = run_unchanged(), run(tmp_path / "other")
    assert list_sizes(first) == list_sizes(second)
    assert len(list_sizes(first)) == SITES * 5
    for key in ("cohort", "survivors", "threshold", "bytes_up", "bytes_down"):
        assert one.read_metrics()[0][key] == other.read_metrics()[0][key]
    assert build_site_plan(one.config).divisor == build_site_plan(other.config).divisor == SITES


# Metrics


def test_nothing_but_the_noised_vector_is_in_the_sum(tmp_path):
    directory, watching = run(tmp_path / "run")
    vectors = [r for r in watching.replies if get_stage(r) == "mask"]
    words = [decode(r.content[SECAGG][SECAGG_MESSAGE], MaskedVector).words for r in vectors]
    assert {len(one) for one in words} == {4 * get_share(directory).dimension}
    assert get_share(directory).dimension == 4 * 2 + 2
    line = directory.read_metrics()[0]
    assert not [key for key in line if key.startswith(("train_", "val_", "test_"))]


def test_uncovered_metrics_would_leave_with_it(tmp_path):
    """The control."""
    directory, watching = run(tmp_path / "run", TEXT, "privacy.metrics=uncovered")
    (vector, *_) = (r for r in watching.replies if get_stage(r) == "mask")
    words = decode(vector.content[SECAGG][SECAGG_MESSAGE], MaskedVector).words
    assert len(words) == 4 * (get_share(directory).dimension + 1)
    assert {"train_loss", "test_accuracy"} <= directory.read_metrics()[0].keys()


def ask_again(tmp_path, change=lambda content: None, *, kind="train.secagg_advertise"):
    """Return a site's answer to the announcement of its run, changed or sent as another kind."""
    asked = []

    def note(message):
        if get_stage(message) == "advertise":
            asked.append(message.content)
        return message

    run(tmp_path / "run", change_request=note)
    content = type(asked[0])(dict(asked[0]))
    change(content)
    message = Message(content, dst_node_id=2, message_type=kind)
    return app(message, make_context(2, {"partition-id": 0, "randomness": "simulated"}, {}))


def test_site_refuses_to_evaluate_where_metrics_are_suppressed(tmp_path):
    def change(content):
        content[SECAGG] = ConfigRecord(dict(content[SECAGG]) | {SECAGG_PURPOSE: "evaluate"})

    assert ask_again(tmp_path, change).error.reason == "context"


def test_site_answers_no_evaluate_message(tmp_path):
    assert ask_again(tmp_path, kind="evaluate").error.code == 103


def test_site_refuses_a_round_beyond_the_configs_last(tmp_path):
    """Each sum costs: a coordinator that went on would get more of them than are accounted."""

    def change(content):
        context = decode(content[SECAGG][SECAGG_MESSAGE], RoundContext)
        later = bytes(encode(replace(context, round=2)))
        content[SECAGG] = ConfigRecord(dict(content[SECAGG]) | {SECAGG_MESSAGE: later})
        content[CONFIG] = ConfigRecord(dict(content[CONFIG]) | {SERVER_ROUND: 2})

    assert ask_again(tmp_path, change).error.reason == "context"
