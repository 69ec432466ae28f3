"""What `fedtrain verify` finds in a run directory that was changed, and what it lets pass.

Whoever changes it seals it anew, but where a test says otherwise: the manifest is to be no help.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.audit.checks import Check
from fedtrain.report.verify import verify_run
from fedtrain.seal import MANIFEST, list_files, read_manifest, seal_run
from fedtrain.secagg.simulated import describe_roster, make_pinned_roster

CopyRun = Callable[..., Path]
EditLines = Callable[..., None]
EPSILON = r'"epsilon": \d+\.\d{8}(\d*)'
# What the docstring of fedtrain.report.verify says that nothing derives.
UNCOVERED = {
    "metrics.jsonl": [
        r'"(?:test_\w+|val_\w+|train_loss|seconds|bytes_\w+)": ([^,}]+)',
        r'"void": "([^"]*)"',
        EPSILON,
    ],
    "sites.json": [EPSILON],
    "transcript.jsonl": [r'"sum":"(\w*)"'],
    "config.toml": [r'directory = "([^"]*)"', r"workers = (\d+)"],
    "ledger.jsonl": [],
    "roster.json": [],
    "model.safetensors": [],
}


def find_failed(path: Path, roster: Path | None = None, *, seal: bool = True) -> list[Check]:
    if seal:
        seal_run(path)
    return [check for check in verify_run(path, roster) if check.failed]


def list_covered(name: str, data: bytes) -> list[int]:
    """Return the positions of a file that an audit covers."""
    text = data.decode("latin-1")
    spans = [match.span(1) for pattern in UNCOVERED[name] for match in re.finditer(pattern, text)]
    left_out = {place for start, stop in spans for place in range(start, stop)}
    return [place for place in range(len(data)) if place not in left_out]


@pytest.fixture(scope="module", params=["protocol", "void"])
def target(simulated: Callable[[str], Path], tmp_path_factory, request) -> Path:
    folder = tmp_path_factory.mktemp("flipped") / "run"
    return Path(shutil.copytree(simulated(request.param), folder))


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_changed_byte_is_found(target, data):
    file = target / data.draw(st.sampled_from(sorted(UNCOVERED)))
    content = file.read_bytes()
    place = data.draw(st.sampled_from(list_covered(file.name, content)))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        file.write_bytes(changed)
        assert find_failed(target)
    finally:
        file.write_bytes(content)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_byte_of_any_file_is_found(target, data):
    seal_run(target)
    names = [name for name in (*list_files(target), MANIFEST) if (target / name).stat().st_size]
    file = target / data.draw(st.sampled_from(names))
    content = file.read_bytes()
    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        file.write_bytes(changed)
        assert find_failed(target, seal=False)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("kind", ["protocol", "void", "plain", "dropouts", "arithmetic", "off"])
def test_manifest_has_every_file_of_a_run(simulated, kind):
    path = simulated(kind)
    assert sorted(read_manifest(path)) == list_files(path)


def test_file_that_nobody_sealed_is_named(copy_run: CopyRun) -> None:
    path = copy_run()
    (path / "notes.txt").write_text("mine")
    sealed = verify_run(path)[-1]
    assert sealed.result == "ok; not covered: notes.txt"


def test_manifest_that_is_gone_is_found(copy_run: CopyRun) -> None:
    path = copy_run()
    (path / MANIFEST).unlink()
    assert [check.name for check in find_failed(path, seal=False)] == ["files as sealed"]


def test_number_beyond_all_is_damage(copy_run: CopyRun) -> None:
    path = copy_run() / "model.json"
    path.write_text(re.sub(r"-?\d+\.\d+", "1e999", path.read_text(), count=1))
    assert "1e999 is beyond what a number can be" in str(find_failed(path.parent, seal=False))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_a_finding_and_never_a_traceback(target, data):
    names = sorted([*UNCOVERED, "state.json", "model.json"])
    file = target / data.draw(st.sampled_from(names))
    content = file.read_bytes()
    start = data.draw(st.integers(0, len(content) - 1))
    stop = data.draw(st.integers(start + 1, len(content)))
    filling = data.draw(st.sampled_from([b"", b"\xff", b"1e999", b"[]", b"{}", b'"x"', b"-9" * 9]))
    try:
        file.write_bytes(content[:start] + filling + content[stop:])
        verify_run(target)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("kind", ["protocol", "void", "plain", "dropouts", "arithmetic", "off"])
def test_run_as_it_ended_holds(simulated, kind):
    checks = verify_run(simulated(kind))
    assert not [check for check in checks if check.failed]
    signed = [check.count for check in checks if check.name == "signatures of secure sums"]
    assert bool(signed and signed[0]) == (kind not in ("arithmetic", "off"))


def test_run_with_a_cohort_too_small_for_a_sum_holds(simulated):
    lines = (simulated("void") / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["cohort"] for line in lines} & {1, 2}


@pytest.mark.parametrize("name", [*sorted(UNCOVERED), "state.json", "model.json"])
def test_missing_file_is_found(copy_run: CopyRun, name: str) -> None:
    path = copy_run()
    (path / name).unlink()
    assert any(name in check.result for check in find_failed(path))


def test_run_that_was_killed_holds_up_to_its_last_commit(copy_run: CopyRun) -> None:
    path = copy_run()
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"status": "running"}) + "\n")
    (path / MANIFEST).unlink()
    with (path / "ledger.jsonl").open("a") as file:
        file.write('{"expected_ba')
    assert not find_failed(path)
    (path / "state.json").write_text(json.dumps(state) + "\n")
    assert "ledger.jsonl: has" in find_failed(path)[0].result


@pytest.mark.parametrize("kind", ["protocol", "arithmetic", "off"])
def test_ledger_without_a_line_is_found(copy_run: CopyRun, edit_lines: EditLines, kind) -> None:
    path = copy_run(kind)
    edit_lines(path, "ledger.jsonl", lambda lines: lines[:-1])
    results = " ".join(check.result for check in find_failed(path))
    assert "3 lines of round 2, in which 4 of 4 sites survived" in results
    assert ("no line for the vector of 'site-03'" in results) == (kind == "protocol")


def test_ledger_with_a_line_too_many_is_found(copy_run: CopyRun, edit_lines: EditLines) -> None:
    path = copy_run()
    edit_lines(path, "ledger.jsonl", lambda lines: [*lines, lines[-1]])
    assert any("a second line of 'site-03'" in check.result for check in find_failed(path))


def test_ledger_with_weaker_noise_is_found(copy_run: CopyRun, edit_lines: EditLines) -> None:
    path = copy_run()
    edit_lines(
        path,
        "ledger.jsonl",
        lambda lines: [line.replace('"steps":4', '"steps":3') for line in lines],
    )
    assert any("another mechanism" in check.result for check in find_failed(path))


def test_sums_left_out_or_exchanged_are_found(copy_run: CopyRun, edit_lines: EditLines) -> None:
    path = copy_run()
    edit_lines(path, "transcript.jsonl", lambda lines: lines[:-1])
    assert any("3 secure sums, due are 4" in check.result for check in find_failed(path))
    edit_lines(path, "transcript.jsonl", lambda lines: [lines[1], lines[0], *lines[2:]])
    assert any("where round 1, train is due" in check.result for check in find_failed(path))


def test_epsilon_made_smaller_is_found(copy_run: CopyRun, edit_lines: EditLines) -> None:
    path = copy_run()
    edit_lines(
        path,
        "metrics.jsonl",
        lambda lines: [re.sub(r'"epsilon": [\d.]+', '"epsilon": 1.0', line) for line in lines],
    )
    assert [check.name for check in find_failed(path)] == ["epsilons by round"]


def test_model_of_another_run_with_its_digest_is_found(copy_run: CopyRun, simulated) -> None:
    path = copy_run()
    for name in ("model.safetensors", "model.json"):
        shutil.copy(simulated("void") / name, path / name)
    text = (path / "model.json").read_text().replace('"last_round": 8', '"last_round": 2')
    (path / "model.json").write_text(text)
    assert "not the model of the checkpoint" in find_failed(path)[0].result


def test_checkpoint_of_another_model_is_found(copy_run: CopyRun, simulated) -> None:
    path = copy_run()
    checkpoint = simulated("void") / "checkpoint" / "round-0000008.safetensors"
    shutil.copy(checkpoint, path / "checkpoint" / "round-0000002.safetensors")
    results = [check.result for check in find_failed(path)]
    assert any("last model is not the one that sites evaluated" in result for result in results)


def write_roster(path: Path, seed: int, *, simulated: bool) -> Path:
    sites = [f"site-{i:02d}" for i in range(4)]
    tree = describe_roster(make_pinned_roster(seed, sites)) | {"simulated": simulated}
    path.write_text(json.dumps(tree, indent=2) + "\n")
    return path


def test_roster_of_another_root_is_found(copy_run: CopyRun, tmp_path: Path) -> None:
    path = copy_run()
    other = write_roster(tmp_path / "other.json", 99, simulated=False)
    names = [check.name for check in find_failed(path, other)]
    assert names[:2] == ["roster", "signatures of secure sums"]
    assert not find_failed(path, path / "roster.json")
    write_roster(path / "roster.json", 99, simulated=False)
    assert any("under another roster" in check.result for check in find_failed(path))


def test_keys_called_simulated_must_be_the_seeds(copy_run: CopyRun) -> None:
    path = copy_run()
    write_roster(path / "roster.json", 99, simulated=True)
    assert "not those of the seed" in find_failed(path)[0].result


@pytest.mark.parametrize("kind", ["arithmetic", "off"])
def test_transcript_without_keys_is_found(copy_run, simulated, edit_lines, kind) -> None:
    path = copy_run(kind)
    lines = (simulated("protocol") / "transcript.jsonl").read_text().splitlines()
    edit_lines(path, "transcript.jsonl", lambda _: lines)
    assert any("4 sums, but mode" in check.result for check in find_failed(path))


def test_site_metric_in_the_coordinators_file_is_found(copy_run: CopyRun) -> None:
    path = copy_run()
    sites = json.loads((path / "sites.json").read_text())
    sites[0]["test_accuracy"] = 0.5
    (path / "sites.json").write_text(json.dumps(sites, indent=2) + "\n")
    assert "test_accuracy, which only it may know" in find_failed(path)[0].result
