"""Whole federations: exactness, resumption, faults."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional

from fedtrain.config import AVERAGING_STRATEGIES, parse_config
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shards
from fedtrain.errors import AuditError, RunDirectoryError, RunFailedError
from fedtrain.models.saved import load_saved_model
from fedtrain.privacy.accounting import compute_cost
from fedtrain.resolution import resolve
from simulations.progress import Silence
from simulations.simulate import open_config, reopen, simulate, start

SMALL = """
[run]
name = "small"
[partition]
scheme = "dirichlet"
sites = 4
[model]
hidden = [16]
[federation]
rounds = 3
"""
PRIVATE = """
[run]
name = "private"
[partition]
scheme = "iid"
sites = 5
[training]
sampling = "poisson"
sample_rate = 0.2
local_steps = 3
expected_batch_size = 50
[federation]
rounds = 4
sites_per_round = 3
[privacy]
unit = "record"
target_epsilon = 5.0
"""


def run(path: Path, text: str, *overrides: str):
    opened = open_config(resolve(parse_config(text, overrides)))
    directory = start(opened, path)
    simulate(directory, Silence())
    return directory


def read_model(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("text", [SMALL, PRIVATE], ids=["plain", "private"])
def test_model_bytes_do_not_depend_on_the_number_of_workers(tmp_path, text):
    models = set()
    for workers in (1, 2, 4):
        run(tmp_path / str(workers), text, f"simulation.workers={workers}")
        models.add(read_model(tmp_path / str(workers)))
    assert len(models) == 1


def test_seed_changes_the_model(tmp_path):
    run(tmp_path / "a", SMALL)
    run(tmp_path / "b", SMALL, "run.seed=1")
    assert read_model(tmp_path / "a") != read_model(tmp_path / "b")


def test_one_client_with_all_data_equals_plain_pytorch(tmp_path):
    directory = run(
        tmp_path / "run",
        SMALL,
        "partition.sites=1",
        "secure_aggregation.mode=off",
        "partition.scheme=iid",
        "federation.rounds=1",
        "data.validation_fraction=0",
    )
    saved = load_saved_model(directory.path)
    shards = Shards.open(directory.config)
    records = shards.load(0, Preparation.from_json(dict(saved.preparation))).train
    vector = train_plainly(directory.config, records)
    ours = np.concatenate([p.detach().numpy().ravel() for p in saved.model.parameters()])
    np.testing.assert_allclose(ours, vector, rtol=1e-5, atol=1e-6)


def train_plainly(config, records) -> np.ndarray:
    """One epoch of SGD as PyTorch's own documentation writes it."""
    from fedtrain.models.registry import build_model
    from fedtrain.seeds import make_torch_generator

    generator = make_torch_generator(0, "start model")
    model = build_model(config.model, input_shape=(1, 8, 8), classes=10, generator=generator)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.from_numpy(records.features), torch.from_numpy(records.labels)
    order = torch.randperm(len(y), generator=make_torch_generator(0, "shuffling", "site-00", 1))
    for index in order.split(32):
        optimiser.zero_grad()
        functional.cross_entropy(model(x[index]), y[index]).backward()
        optimiser.step()
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


def test_run_directory_is_complete_and_loads_alone(tmp_path):
    directory = run(tmp_path / "run", SMALL)
    names = {path.name for path in directory.path.iterdir()}
    assert names >= {
        "config.toml",
        "metrics.jsonl",
        "model.safetensors",
        "model.json",
        "ledger.jsonl",
        "environment.json",
        "curves.png",
        "privacy.png",
        "log.txt",
        "state.json",
        "sites.json",
        "confusion.json",
    }
    text = (directory.path / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert {"train_loss", "val_loss", "test_auc", "cohort", "bytes_up"} <= set(lines[0])
    saved = load_saved_model(directory.path)
    assert saved.label_names == tuple("0123456789")


def test_best_and_last_model_are_both_kept(tmp_path):
    directory = run(
        tmp_path / "run",
        SMALL,
        "training.learning_rate=3.0",
        "federation.rounds=6",
        "secure_aggregation.max_update_norm=1000.0",
    )
    losses = [line["val_loss"] for line in directory.read_metrics()]
    best = int(np.argmin(losses)) + 1
    assert directory.state.best_round == best
    if best != 6:
        assert read_model(directory.path) != read_model(directory.path / "last")
    saved = load_saved_model(directory.path)
    assert saved.notes["best_round"] == best


def test_epsilon_counts_each_site_s_own_rounds(tmp_path):
    directory = run(tmp_path / "run", PRIVATE)
    config = directory.config
    sites = {site["site"]: site for site in json.loads((directory.path / "sites.json").read_text())}
    rounds = dict.fromkeys(sites, 0)
    for entry in directory.read_ledger():
        rounds[entry.site] += 1
        assert entry.noise_multiplier == config.privacy.noise_multiplier
    assert sum(rounds.values()) == 12
    for name, site in sites.items():
        assert site["rounds"] == rounds[name]
        events = [entry.to_event() for entry in directory.read_ledger() if entry.site == name]
        expected = compute_cost(events, delta=1e-5).epsilon if events else 0.0
        assert site["epsilon"] == pytest.approx(expected)
    last = directory.read_metrics()[-1]
    assert last["epsilon"] == max(site["epsilon"] for site in sites.values())
    assert last["epsilon"] <= 5.0


def test_epsilon_never_falls_over_the_rounds(tmp_path):
    epsilons = [line["epsilon"] for line in run(tmp_path / "run", PRIVATE).read_metrics()]
    assert epsilons == sorted(epsilons)
    assert epsilons[0] > 0


def test_run_with_poisson_cohorts_survives_empty_rounds(tmp_path):
    scheme = ("federation.site_sample_rate=0.3", "secure_aggregation.mode=off")
    directory = run(tmp_path / "run", SMALL, *scheme)
    lines = directory.read_metrics()
    assert min(line["cohort"] for line in lines) == 0 < max(line["cohort"] for line in lines)
    assert all(line["survivors"] == line["cohort"] for line in lines)


def test_run_whose_sites_all_diverge_goes_on_to_its_end_and_has_failed(tmp_path):
    with pytest.raises(RunFailedError, match="none of the 3 rounds changed the model"):
        run(tmp_path / "run", SMALL, "training.learning_rate=1e30")
    path = tmp_path / "run"
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line["survivors"] for line in lines] == [0, 0, 0]
    assert all("below the threshold" in line["void"] for line in lines)
    assert not (path / "ledger.jsonl").read_text()
    assert (path / "log.txt").read_text().count("message=local training ended") == 12
    assert json.loads((path / "state.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    "strategy",
    ["FedAdam", "FedMedian", "Krum", pytest.param("QFedAvg", marks=pytest.mark.slow), "FedProx"],
)
def test_strategies_run_through_the_whole_federation(tmp_path, strategy):
    mode = "protocol" if strategy in AVERAGING_STRATEGIES else "off"
    directory = run(
        tmp_path / "run",
        SMALL,
        f"federation.strategy={strategy}",
        f"secure_aggregation.mode={mode}",
    )
    lines = directory.read_metrics()
    assert lines[-1]["survivors"] == 4
    assert lines[-1]["val_loss"] != lines[0]["val_loss"]


@pytest.mark.parametrize(
    "text", [SMALL, pytest.param(PRIVATE, marks=pytest.mark.slow)], ids=["plain", "private"]
)
def test_killed_run_resumes_to_the_same_bytes(tmp_path, text):
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(text.replace("rounds = ", "strategy = 'FedAdam'\nrounds = 1"))
    options = ["federation.rounds=14"]
    whole = start_command(scenario, tmp_path / "whole", options)
    whole.communicate(timeout=120)
    assert whole.returncode == 0
    killed = start_command(scenario, tmp_path / "killed", options)
    wait_for_round(tmp_path / "killed", 4)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert read_state(tmp_path / "killed")["round"] >= 4
    simulate(reopen(tmp_path / "killed", None), Silence())
    assert read_model(tmp_path / "killed") == read_model(tmp_path / "whole")
    for name in ("ledger.jsonl", "sites.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_interrupted_run_says_how_to_go_on(tmp_path):
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(SMALL)
    process = start_command(scenario, tmp_path / "run", ["federation.rounds=5000"])
    wait_for_round(tmp_path / "run", 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"--resume {tmp_path / 'run'}" in errors
    assert "Traceback" not in errors
    assert read_state(tmp_path / "run")["status"] == "stopped"


def start_command(scenario: Path, out: Path, overrides: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fedtrain", "simulate", str(scenario), "--out", str(out)]
    for override in overrides:
        command += ["--set", override]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )


def read_state(path: Path) -> dict:
    return json.loads((path / "state.json").read_text())


def wait_for_round(path: Path, wanted: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (path / "state.json").exists() and read_state(path)["round"] >= wanted:
            return
        time.sleep(0.005)
    raise TimeoutError(f"{path} did not reach round {wanted}")


def test_resume_refuses_another_config(tmp_path):
    directory = run(tmp_path / "run", SMALL)
    with pytest.raises(RunDirectoryError, match="another config"):
        reopen(directory.path, None, ["federation.rounds=9"])


def test_resume_refuses_changed_data(tmp_path):
    data = tmp_path / "data.npz"
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.savez(data, x=x, y=np.arange(60) % 2)
    public = 'bounds = {x = [-9, 9]}\nclasses = ["0", "1"]'
    text = f'{SMALL}\n[data]\nsource = "npz"\npath = "{data}"\n{public}'
    directory = run(tmp_path / "run", text)
    np.savez(data, x=x + 1, y=np.arange(60) % 2)
    with pytest.raises(AuditError, match="fingerprint"):
        reopen(directory.path, None)


def test_resume_may_change_the_number_of_workers(tmp_path):
    directory = run(tmp_path / "run", SMALL)
    again = reopen(directory.path, None, ["simulation.workers=2"])
    simulate(again, Silence())
    assert again.config.simulation.workers == 2
    assert load_file(directory.path / "model.safetensors")
