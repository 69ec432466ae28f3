"""SCAFFOLD, FedNova, local layers and sites' own models, in whole federations."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedtrain.config import parse_config
from fedtrain.errors import ConfigError, RunDirectoryError
from fedtrain.report.verify import verify_run
from fedtrain.resolution import resolve
from fedtrain.use.run_model import load_run_model
from simulations.progress import Silence
from simulations.simulate import open_config, reopen, simulate, start

SMALL = """
[run]
name = "small"
[partition]
scheme = "dirichlet"
sites = 4
[model]
name = "mlp"
hidden = [8]
[training]
local_steps = 3
[federation]
rounds = 3
weighting = "equal"
[secure_aggregation]
mode = "arithmetic"
"""
PRIVATE = """
sampling = "poisson"
sample_rate = 0.2
expected_batch_size = 50
[privacy]
unit = "record"
metrics = "uncovered"
noise_multiplier = 1.0
"""
RECORD = SMALL.replace("local_steps = 3\n", f"local_steps = 3{PRIVATE}")
SITE = (
    SMALL
    + """
[privacy]
unit = "site"
[privacy.site]
noise_multiplier = 1.0
max_update_norm = 0.1
"""
)
SCAFFOLD = "federation.strategy=SCAFFOLD"
LOCAL = 'personalisation.local_layers=["*bias"]'


def run(path: Path, text: str, *overrides: str):
    directory = start(open_config(resolve(parse_config(text, overrides))), path)
    simulate(directory, Silence())
    return directory


def read_model(path: Path) -> dict[str, np.ndarray]:
    return load_file(path / "model.safetensors")


def read_bytes(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()


def read_kept(path: Path, name: str, round: int = 3) -> list[np.ndarray]:
    return [load_file(file)[name] for file in sorted(path.glob(f"kept/*.{round:07d}.safetensors"))]


def read_checkpoint(directory) -> dict[str, np.ndarray]:
    return load_file(directory.path / directory.state.checkpoint)


@pytest.mark.parametrize(
    "text", [SMALL, pytest.param(RECORD, marks=pytest.mark.slow)], ids=["plain", "record"]
)
def test_control_of_the_coordinator_is_the_mean_of_the_sites_own(tmp_path, text):
    directory = run(tmp_path / "run", text, SCAFFOLD)
    own = read_kept(directory.path, "control")
    assert len(own) == 4
    control = read_checkpoint(directory)["strategy.control"]
    np.testing.assert_allclose(control, np.mean(own, axis=0), atol=1e-4)
    assert np.abs(control).max() > 1e-3


def test_scaffold_begins_as_fedavg_and_goes_its_own_way(tmp_path):
    lines = {
        name: run(tmp_path / name, SMALL, f"federation.strategy={name}").read_metrics()
        for name in ("FedAvg", "SCAFFOLD")
    }
    losses = {name: [line["test_loss"] for line in found] for name, found in lines.items()}
    assert losses["FedAvg"][0] == losses["SCAFFOLD"][0]
    assert losses["FedAvg"][2] != losses["SCAFFOLD"][2]


def test_scaffold_does_not_depend_on_workers_nor_on_being_killed(tmp_path):
    whole = run(tmp_path / "whole", SMALL, SCAFFOLD)
    run(tmp_path / "two", SMALL, SCAFFOLD, "simulation.workers=2")
    assert read_bytes(tmp_path / "two") == read_bytes(whole.path)
    killed = start(open_config(resolve(parse_config(SMALL, (SCAFFOLD,)))), tmp_path / "killed")
    shutil.copytree(whole.path / "kept", killed.path / "kept")  # of rounds not committed
    killed.close()
    simulate(reopen(killed.path, None), Silence())
    assert read_bytes(killed.path) == read_bytes(whole.path)


@pytest.mark.parametrize("mode", ["arithmetic", "off"])
def test_fednova_with_equal_steps_is_fedavg(tmp_path, mode):
    options = [f"secure_aggregation.mode={mode}", "federation.weighting=examples"]
    models = [
        read_model(run(tmp_path / name, SMALL, f"federation.strategy={name}", *options).path)
        for name in ("FedAvg", "FedNova")
    ]
    for name, values in models[0].items():
        np.testing.assert_allclose(models[1][name], values, atol=1e-4)


@pytest.mark.slow
def test_fednova_with_unequal_steps_is_not_fedavg(tmp_path):
    text = SMALL.replace("local_steps = 3", "local_epochs = 1").replace('"equal"', '"examples"')
    fedavg, nova = (
        read_model(run(tmp_path / name, text, f"federation.strategy={name}").path)
        for name in ("FedAvg", "FedNova")
    )
    assert max(np.abs(fedavg[name] - nova[name]).max() for name in fedavg) > 1e-3


@pytest.mark.parametrize(
    "text",
    [pytest.param(SMALL, marks=pytest.mark.slow), RECORD, SITE],
    ids=["plain", "record", "site"],
)
def test_local_layers_never_leave_their_site(tmp_path, text):
    directory = run(tmp_path / "run", text, LOCAL)
    other = run(tmp_path / "start", text, LOCAL, "federation.rounds=1", "run.name=other")
    last, first = read_model(directory.path), read_model(other.path)
    changed = {name for name in last if (last[name] != first[name]).any()}
    assert changed == {name for name in last if not name.endswith("bias")}
    assert len({one.tobytes() for one in read_kept(directory.path, "layers")}) == 4


def test_run_with_local_layers_has_no_whole_model_to_use(tmp_path):
    directory = run(tmp_path / "run", SMALL, LOCAL, "federation.rounds=1")
    with pytest.raises(RunDirectoryError, match="no whole model"):
        load_run_model(directory.path)


def test_ditto_changes_no_bit_of_the_global_model(tmp_path):
    plain = run(tmp_path / "plain", SMALL)
    ditto = run(tmp_path / "ditto", SMALL, "personalisation.model=ditto")
    assert read_bytes(plain.path) == read_bytes(ditto.path)
    assert len({one.tobytes() for one in read_kept(ditto.path, "model")}) == 4
    assert all("own_accuracy" in line for line in ditto.read_metrics())


def test_fine_tuned_models_are_tested_at_the_end_beside_the_global_one(tmp_path):
    options = ["personalisation.model=fine_tuned", "personalisation.epochs=5"]
    directory = run(tmp_path / "run", SMALL, *options)
    lines = directory.read_metrics()
    assert ["own_accuracy" in line for line in lines] == [False, False, True]
    assert lines[-1]["own_accuracy"] > lines[-1]["test_accuracy"]
    sites = [json.loads(file.read_text()) for file in (directory.path / "sites").glob("*.json")]
    assert len(sites) == 4
    assert all({"own_accuracy", "test_accuracy"} <= set(site) for site in sites)


def test_own_models_are_summed_alike_with_and_without_secure_aggregation(tmp_path):
    options = ["personalisation.model=fine_tuned", "federation.rounds=1"]
    secure, bare = (
        run(tmp_path / mode, SMALL, *options, f"secure_aggregation.mode={mode}").read_metrics()[-1]
        for mode in ("arithmetic", "off")
    )
    assert secure["own_accuracy"] == pytest.approx(bare["own_accuracy"], abs=0.02)
    described = json.loads((tmp_path / "off" / "sites.json").read_text())
    assert all("own_accuracy" in site for site in described)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([SCAFFOLD, "training.momentum=0.9"], "momentum = 0"),
        ([SCAFFOLD, "federation.weighting=examples"], "weighting = 'equal'"),
        ([SCAFFOLD, "training.schedule=cosine"], "one learning rate"),
        ([SCAFFOLD, LOCAL], "choose FedAvg"),
        (["federation.strategy=FedNova", "training.optimiser=adam"], "optimiser = 'sgd'"),
        ([LOCAL, "personalisation.model=ditto"], "keep one"),
        (["personalisation.epochs=2"], "set one"),
        (['personalisation.local_layers=["nix*"]'], "'nix*' matches no tensor"),
        (['personalisation.local_layers=["*"]'], "every tensor"),
        (["personalisation.model=ditto", "data.test_fraction=0"], "set it to 0.2"),
    ],
)
def test_contradictions_are_refused_at_the_start(overrides, message):
    with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
        open_config(resolve(parse_config(SMALL, overrides)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("federation.strategy=FedNova", "choose FedAvg"),
        ("personalisation.model=ditto", "personalisation.learning_rate is missing"),
    ],
)
def test_contradictions_with_privacy_are_refused_at_the_start(override, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(RECORD, [override])


@pytest.mark.slow
def test_scaffold_under_site_privacy_binds_control_and_clip_and_verifies(tmp_path):
    options = [SCAFFOLD, "privacy.site.clipping=adaptive", "privacy.metrics=uncovered"]
    options += ["secure_aggregation.mode=protocol", "partition.sites=10"]
    directory = run(tmp_path / "run", SITE, *options)
    assert not [check for check in verify_run(directory.path) if check.failed]
    lines = (directory.path / "metrics.jsonl").read_text().splitlines()
    changed = json.loads(lines[1]) | {"control": "0" * 64}
    lines[1] = json.dumps(changed)
    (directory.path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    failed = {check.name for check in verify_run(directory.path) if check.failed}
    assert "models summed over" in failed
