"""`fedtrain client start`: the agent as it is run, in a process of its own."""

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.agent_status import load_status
from fedtrain.canonical import to_canonical
from fedtrain.config import compute_digest, parse_config, to_tree
from fedtrain.link.parcel import Parcel
from fedtrain.protocol import CONFIG, CONFIG_DIGEST, CONFIG_TEXT, DESCRIPTION, RUN_ID, SITE_NAME
from fedtrain.resolution import resolve

FEDTRAIN = Path(sys.executable).parent / "fedtrain"
SCENARIO = """
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
pytestmark = pytest.mark.slow


def make_question(scenario=SCENARIO):
    config = resolve(parse_config(scenario))
    record = {
        CONFIG_TEXT: to_canonical(to_tree(config)),
        CONFIG_DIGEST: compute_digest(config),
        RUN_ID: "heart-1",
    }
    return Parcel("query.describe", {CONFIG: record})


def call(*arguments):
    command = [FEDTRAIN, "client", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def start(site):
    command = [FEDTRAIN, "client", "start", site]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_agent_answers_is_paused_and_leaves(site, coordinator):
    with start(site) as process:
        reply = coordinator.get_reply(coordinator.ask(make_question()), 60)
        assert reply.values[DESCRIPTION][SITE_NAME] == "berlin"
        second = call("start", site)
        assert (second.returncode, second.stderr.count("\n")) == (5, 1)
        assert f"process id {process.pid}" in second.stderr
        assert call("pause", site).returncode == 0
        coordinator.wait(lambda: load_status(site / "agent" / "status.json").state == "paused")
        assert json.loads(call("status", site, "--json").stdout)["running"]
        assert call("leave", site).returncode == 0
        assert process.wait(60) == 0
    assert coordinator.left == 1


def test_signal_ends_the_agent_in_good_order(site, coordinator):
    with start(site) as process:
        coordinator.wait(lambda: coordinator.polls, 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert coordinator.left == 1
    assert call("status", site, "--quiet").returncode == 1


def test_refused_run_says_the_rule_and_nothing_of_the_site(site, coordinator):
    scenario = SCENARIO.replace("noise_multiplier = 1.0", "noise_multiplier = 0.1")
    with start(site):
        task = coordinator.ask(make_question(scenario))
        coordinator.get_reply(task, 60)
    assert b"policy: min_noise_multiplier" in coordinator.replies[task]
    assert b"0.5" not in coordinator.replies[task]


def test_second_agent_elsewhere_ends_with_one_line(site, coordinator):
    coordinator.session = bytes(16)
    with start(site) as process:
        assert process.wait(60) == 7
        assert process.stderr.read().splitlines()[-1] == "fedtrain: the site has another agent"
