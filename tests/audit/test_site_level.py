"""What `fedtrain verify` finds in a changed run with site-level privacy."""

import json
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.report.verify import verify_run
from tests.audit.test_verify import UNCOVERED, find_failed
from tests.simulations.test_site_level import TEXTS, run

# Digits of an epsilon beyond the ninth, whoever's it is.
EPSILON = r'"\w*epsilon": \d+\.\d{8}(\d*)'
LEFT_OUT = UNCOVERED | {"metrics.jsonl": [*UNCOVERED["metrics.jsonl"], EPSILON]}
KINDS = ["adaptive", "sampled", "both"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a finished run of each kind; not to be changed for good."""
    folder = tmp_path_factory.mktemp("site-level")
    for kind in KINDS:
        run(folder / kind, TEXTS[kind])
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return lambda kind: shutil.copytree(finished / kind, tmp_path / kind)


def list_covered(name, data):
    """Return the positions of a file that an audit covers."""
    text = data.decode("latin-1")
    spans = [found.span(1) for pattern in LEFT_OUT[name] for found in re.finditer(pattern, text)]
    left_out = {place for start, stop in spans for place in range(start, stop)}
    return [place for place in range(len(data)) if place not in left_out]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_byte_is_found(finished, kind, data):
    file = finished / kind / data.draw(st.sampled_from(sorted(LEFT_OUT)))
    content = file.read_bytes()
    place = data.draw(st.sampled_from(list_covered(file.name, content)))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        file.write_bytes(changed)
        assert find_failed(file.parent)
    finally:
        file.write_bytes(content)


def set_share(field, factor):
    def change(lines):
        entry = json.loads(lines[-1])
        value = entry["noise_share"][field]
        entry["noise_share"][field] = type(value)(value * factor)
        return [*lines[:-1], json.dumps(entry, sort_keys=True, separators=(",", ":"))]

    return change


@pytest.mark.parametrize(
    "field", ["sensitivity", "share_variance", "shares", "dimension", "max_update_norm"]
)
@pytest.mark.parametrize("kind", ["adaptive", "both"])
def test_share_of_the_noise_made_smaller_is_found(copy, edit_lines, kind, field):
    path = copy(kind)
    edit_lines(path, "ledger.jsonl", set_share(field, 0.5))
    assert any("another mechanism" in check.result for check in find_failed(path))


def test_ledger_line_without_its_share_of_the_noise_is_found(copy, edit_lines):
    path = copy("adaptive")

    def strip(lines):
        return [re.sub(r'"noise_share":\{[^}]*\},', "", line) for line in lines]

    edit_lines(path, "ledger.jsonl", strip)
    assert any("another mechanism" in check.result for check in find_failed(path))


def scale(key, factor, index):
    def change(lines):
        line = json.loads(lines[index])
        line[key] *= factor
        return [*lines[:index], json.dumps(line), *lines[index:][1:]]

    return change


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("adaptive", "epsilon"),
        ("adaptive", "delta"),
        ("sampled", "epsilon"),
        ("sampled", "coordinator_epsilon"),
        ("sampled", "coordinator_delta"),
        ("both", "epsilon"),
        ("both", "site_epsilon"),
        ("both", "site_delta"),
    ],
)
def test_guarantee_made_better_is_found(copy, edit_lines, kind, key):
    path = copy(kind)
    edit_lines(path, "metrics.jsonl", scale(key, 0.5, 1))
    assert [check.name for check in find_failed(path)] == ["epsilons by round"]


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.5, 1.01, 2.0])
@pytest.mark.parametrize("kind", ["adaptive", "sampled"])
def test_clip_of_a_round_that_was_another_is_found(copy, edit_lines, kind, factor, index):
    """Also twice the clip, which gives the same noise in units of the ring."""
    path = copy(kind)
    edit_lines(path, "metrics.jsonl", scale("update_norm", factor, index))
    assert find_failed(path)


@pytest.mark.parametrize("prefix", ["site_", "coordinator_"])
def test_guarantee_that_nothing_gives_is_found(copy, edit_lines, prefix):
    path = copy("adaptive")

    def add(lines):
        more = {f"{prefix}epsilon": 1.0, f"{prefix}delta": 1e-5}
        return [json.dumps(json.loads(line) | more) for line in lines]

    edit_lines(path, "metrics.jsonl", add)
    assert find_failed(path)


def test_accountant_of_the_site_is_checked(copy):
    path = copy("both")
    state = json.loads((path / "state.json").read_text())
    assert state["site_accountant"] == "pld"
    (path / "state.json").write_text(json.dumps(state | {"site_accountant": "rdp"}) + "\n")
    assert "site_accountant = rdp, due is pld" in find_failed(path)[0].result
    assert len(verify_run(path)) > len(find_failed(path))
