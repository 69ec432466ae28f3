"""Run directories as a simulation leaves them, written by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedtrain.config import build_config, compute_digest, to_toml

PRIVACY = {"unit": "record", "target_epsilon": 8.0, "noise_multiplier": 1.1}
POISSON = {"sampling": "poisson", "sample_rate": 0.25, "expected_batch_size": 32, "local_steps": 4}


def build_line(number: int, *, private: bool, secure: bool) -> dict[str, Any]:
    """Return a realistic line of metrics.jsonl."""
    accuracy = 0.95 * (1 - math.exp(-number / 4))
    spent = {"epsilon": 1.45 * math.sqrt(number), "delta": 1e-5} if private else {}
    return {
        "round": number,
        "train_loss": 2.3 * math.exp(-number / 9),
        "val_loss": 2.3 * math.exp(-number / 8),
        "val_accuracy": accuracy,
        "test_loss": 2.3 * math.exp(-number / 8) + 0.05,
        "test_accuracy": accuracy - 0.01,
        "test_auc": 1 - 0.5 * math.exp(-number / 3),
        **spent,
        "cohort": 10,
        "survivors": 9,
        **({"threshold": 7} if secure else {}),
        "seconds": 0.25,
        "bytes_up": 100_000,
        "bytes_down": 100_000,
    }


def write_sites(path: Path, sites: int, *, rounds: int, private: bool, secure: bool) -> None:
    """Write what is known of each site, its own metrics in a file of its own where `secure`."""
    entries: list[dict[str, Any]] = []
    for i in range(sites):
        entries.append({"site": f"site-{i}", "epsilon": 7.9 if private else None, "rounds": rounds})
        own = {"test_accuracy": 0.9 - 0.001 * i, "test_auc": 0.95, "test_loss": 0.3}
        if secure:
            (path / "sites").mkdir(exist_ok=True)
            line = {"site": f"site-{i}", "round": rounds} | own
            (path / "sites" / f"{i:06d}.json").write_text(json.dumps(line))
        else:
            entries[-1] |= own
    (path / "sites.json").write_text(json.dumps(entries))
    if secure:
        (path / "roster.json").write_text('{"simulated": true}')


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a run directory: `make_run("a", rounds=30, private=True)`."""

    def make(
        name: str = "a",
        *,
        rounds: int = 30,
        private: bool = False,
        sites: int = 4,
        config: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
    ) -> Path:
        tree: dict[str, Any] = {"run": {"name": name}, "federation": {"rounds": 30}}
        if private:
            tree |= {"privacy": PRIVACY, "training": POISSON}
        resolved = build_config(tree | (config or {}))
        path = tmp_path / "runs" / name
        path.mkdir(parents=True)
        digest = compute_digest(resolved)
        (path / "config.toml").write_text(f'{to_toml(resolved)}\n# digest = "{digest}"\n')
        secure = resolved.secure_aggregation.mode != "off"
        lines = [
            build_line(number, private=private, secure=secure) for number in range(1, rounds + 1)
        ]
        (path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        finished = {
            "status": "finished",
            "reason": None,
            "round": rounds,
            "rounds": 30,
            "best_round": None if private else max(1, rounds - 2),
            "started": "2026-03-01T10:00:00+00:00",
            "seconds": 7.5,
            "sites": sites,
            "digest": digest,
        }
        (path / "state.json").write_text(json.dumps(finished | (state or {})))
        write_sites(path, sites, rounds=rounds, private=private, secure=secure)
        return path

    return make
