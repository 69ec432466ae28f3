"""A run directory: created once, committed after each round, resumed from the last commit.

What is in it: `config.toml` (resolved, with its digest), `environment.json`, `metrics.jsonl` (a
line a round), `ledger.jsonl` (a line a site and round), `sites.json` (each site's last evaluation),
`log.txt`, `checkpoint/` (model and strategy state of the last round), `state.json`, and at the end
`model.safetensors`, `model.json`, the pictures, and `manifest.json` (`fedtrain.seal`). Beside them
stands `costs.jsonl` (`fedtrain.costs`), which the run does not need.

The commit point of a round is the atomic replacement of `state.json`. It names the checkpoint files
and the lengths that `metrics.jsonl` and `ledger.jsonl` had, so that whatever a killed process wrote
after it is cut off again on resume.
"""

import fcntl
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fedtrain.config import Config, compute_digest, load_config, to_toml
from fedtrain.durable import replace_file
from fedtrain.errors import AuditError, FedtrainError, RunDirectoryError
from fedtrain.privacy.ledger import LedgerEntry, read_ledger
from fedtrain.seal import seal_run, unseal_run

Arrays = Mapping[str, NDArray[Any]]
Status = Literal["running", "finished", "stopped", "failed"]
_PACKAGES: Final = ("fedtrain", "flwr", "torch", "opacus", "dp-accounting", "numpy", "cryptography")
# A kill never loses a committed round. A power cut may lose the rounds of the last second: syncing
# each round would cost more than a small round takes.
_SYNC_SECONDS: Final = 1.0


@dataclass(frozen=True)
class RunState:
    """What `state.json` says: where the run stands.

    Attributes:
        round: Last committed round; 0 is the start model.
        best_round: Round of the best model so far, where one is chosen by validation loss.
        best_loss: Its validation loss.
        seconds: Time spent in rounds, over all sittings.
        lengths: Committed bytes of the line files.
        run_id: Random name of the run, by which sites tell it from every other.
        sittings: How often the run was begun or resumed.
        left: Sites that take no part any more, with the round that they left in: they are in none
            of its evaluations, and in no later sum.
    """

    status: Status
    round: int
    rounds: int
    digest: str
    sites: int
    started: str
    seconds: float = 0.0
    reason: str | None = None
    accountant: str | None = None
    site_accountant: str | None = None
    best_round: int | None = None
    best_loss: float | None = None
    checkpoint: str | None = None
    best: str | None = None
    lengths: dict[str, int] = field(default_factory=dict)
    run_id: str = ""
    sittings: int = 0
    left: dict[str, int] = field(default_factory=dict)


class RunDirectory:
    """The writer of a run directory; one process at a time."""

    def __init__(self, path: Path, config: Config, state: RunState) -> None:
        self.path = path
        self.config = config
        self.state = state
        self._synced = 0.0
        self._descriptor: int | None = None

    @classmethod
    def create(cls, path: Path, config: Config, *, fingerprint: str | None = None) -> Self:
        """Make a new run directory for a resolved config.

        Args:
            path: Where; must not exist, or be empty.
            config: The resolved config.
            fingerprint: Digest of the data, never data.

        Raises:
            RunDirectoryError: The folder is in use, cannot be made, or the disk is full.
        """
        digest = compute_digest(config)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        rounds = config.rounds
        state = RunState("running", 0, rounds, digest, 0, started, run_id=secrets.token_hex(16))
        run = cls(path, config, state)
        with _making(path):
            (path / "checkpoint").mkdir()
            run._lock()
            replace_file(path / "config.toml", f'{to_toml(config)}\n# digest = "{digest}"\n')
            environment = describe_environment(config, fingerprint)
            replace_file(path / "environment.json", json.dumps(environment, indent=2) + "\n")
            run._write_state()
        return run

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Open a run directory at its last commit.

        Raises:
            RunDirectoryError: It is no run directory, or was never committed.
            AuditError: A file is not what was committed.
        """
        state = _read_state(path)
        config = load_config(path / "config.toml")
        if compute_digest(config) != state.digest:
            raise AuditError(
                f"{path / 'config.toml'} was changed after the run began (its digest is"
                f" {compute_digest(config)[:12]}, the run's {state.digest[:12]}); restore it"
            )
        run = cls(path, config, state)
        run._lock()
        try:
            with run.writing():
                run._cut_back()
        except FedtrainError:
            run.close()
            raise
        return run

    def commit(
        self,
        *,
        round: int,
        arrays: Arrays,
        metrics: Mapping[str, float | int] | None = None,
        ledger: Iterable[str] = (),
        transcript: Iterable[str] = (),
        seconds: float = 0.0,
        best_loss: float | None = None,
        left: Mapping[str, int] | None = None,
    ) -> None:
        """Make a round durable, all of it or nothing.

        Args:
            round: The round; 0 for the start.
            arrays: Model (`parameters`, `(d,)`) and strategy state.
            metrics: The round's line.
            ledger: The round's ledger lines.
            transcript: What an auditor needs to check its secure sums, a line each.
            seconds: What the round took.
            best_loss: Given when this round's model is the best so far.
            left: Sites that take no part any more, with the round that they left in.

        Raises:
            RunDirectoryError: It cannot be written; the last commit stays.
        """
        with self.writing():
            lengths = {
                "metrics.jsonl": self._append("metrics.jsonl", _to_lines([metrics or {}])),
                "ledger.jsonl": self._append("ledger.jsonl", "".join(f"{x}\n" for x in ledger)),
                "transcript.jsonl": self._append(
                    "transcript.jsonl", "".join(f"{x}\n" for x in transcript)
                ),
            }
            checkpoint = f"checkpoint/round-{round:07d}.safetensors"
            _save_arrays(self.path / checkpoint, arrays)
            update: dict[str, Any] = {"round": round, "checkpoint": checkpoint, "lengths": lengths}
            update["left"] = dict(left or {})
            if best_loss is not None:
                best = f"checkpoint/best-{round:07d}.safetensors"
                _save_arrays(self.path / best, {"parameters": arrays["parameters"]})
                update |= {"best": best, "best_round": round, "best_loss": best_loss}
            self._write_state(seconds=self.state.seconds + seconds, **update)
            self._remove_stale()

    def load_checkpoint(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the last commit."""
        return self._load(self.state.checkpoint)

    def load_best(self) -> NDArray[np.float32] | None:
        """Return the best model's vector `(d,)`, or None where none was chosen."""
        return self._load(self.state.best)["parameters"] if self.state.best else None

    def mark_running(self) -> None:
        """Write that the run goes on."""
        with self.writing():
            unseal_run(self.path)
            self._write_state(status="running", reason=None, sittings=self.state.sittings + 1)

    def finish(self, status: Status, reason: str | None = None) -> None:
        """Write how the run ended; the files of one that is finished are sealed."""
        with self.writing():
            self._write_state(status=status, reason=reason)
            unseal_run(self.path)
            if status == "finished":
                seal_run(self.path)

    def write_setting(
        self, *, sites: int, accountant: str | None, site_accountant: str | None = None
    ) -> None:
        """Write how many sites the run has, and what computes its epsilon, or both of them."""
        with self.writing():
            self._write_state(sites=sites, accountant=accountant, site_accountant=site_accountant)

    def write_json(self, name: str, tree: Any) -> None:
        """Write a file of the run directory as JSON, atomically."""
        with self.writing():
            replace_file(self.path / name, json.dumps(tree, indent=2) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the committed lines of `metrics.jsonl`."""
        path = self.path / "metrics.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def read_ledger(self) -> list[LedgerEntry]:
        """Return the committed lines of `ledger.jsonl`."""
        path = self.path / "ledger.jsonl"
        return read_ledger(path) if path.exists() else []

    def read_fingerprint(self) -> str | None:
        """Return the digest of the data that the run was started on.

        Raises:
            AuditError: `environment.json` is missing or damaged.
        """
        path = self.path / "environment.json"
        try:
            fingerprint: str | None = json.loads(path.read_text(encoding="utf-8"))[
                "data_fingerprint"
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AuditError(
                f"{path} is missing or damaged; restore it, or start anew with --out"
            ) from error
        return fingerprint

    def _lock(self) -> None:
        """Hold the directory until this process ends; a second process is refused."""
        with self.writing():
            self._descriptor = os.open(self.path / "checkpoint" / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise RunDirectoryError(
                f"{self.path} is in use by another process; wait for it or stop it"
            ) from error

    def close(self) -> None:
        """Let another process have the directory."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write_state(self, **update: Any) -> None:
        self.state = replace(self.state, **update)
        sync = time.monotonic() - self._synced > _SYNC_SECONDS or self.state.status != "running"
        replace_file(self.path / "state.json", json.dumps(asdict(self.state)) + "\n", sync=sync)
        if sync:
            self._synced = time.monotonic()

    def _append(self, name: str, text: str) -> int:
        """Append to a line file; return its new length in bytes."""
        with (self.path / name).open("ab") as file:
            file.write(text.encode())
            return file.tell()

    def _cut_back(self) -> None:
        """Cut off what was written after the last commit."""
        for name in ("metrics.jsonl", "ledger.jsonl", "transcript.jsonl"):
            path, length = self.path / name, self.state.lengths.get(name, 0)
            actual = path.stat().st_size if path.exists() else 0
            if actual < length:
                raise AuditError(
                    f"{path} has {actual} bytes, {length} were committed; the run cannot be resumed"
                )
            if actual > length:
                os.truncate(path, length)
        self._remove_stale()

    def _remove_stale(self) -> None:
        keep = {self.state.checkpoint, self.state.best, "checkpoint/lock"}
        for name in os.listdir(self.path / "checkpoint"):  # noqa: PTH208 - twice as fast
            if f"checkpoint/{name}" not in keep:
                (self.path / "checkpoint" / name).unlink()

    def _load(self, name: str | None) -> dict[str, NDArray[Any]]:
        if name is None:
            raise RunDirectoryError(f"{self.path} holds no checkpoint; start it anew with --out")
        try:
            arrays: dict[str, NDArray[Any]] = load_file(self.path / name)
        except (OSError, SafetensorError) as error:
            raise AuditError(f"{self.path / name} is damaged; the run cannot be resumed") from error
        return arrays

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn a failed write into one line that says what to do."""
        try:
            yield
        except (OSError, SafetensorError) as error:  # the latter carries only text
            reason = getattr(error, "strerror", None) or error
            raise RunDirectoryError(
                f"{self.path}: cannot write ({reason}); round"
                f" {self.state.round} is committed, make room and go on with --resume {self.path}"
            ) from error


@contextmanager
def _making(path: Path) -> Iterator[None]:
    """Make a folder, or take an empty one; remove a new one again where it cannot be filled."""
    made = False
    try:
        if not path.exists():
            path.mkdir(parents=True)
            made = True
        elif not path.is_dir():
            raise RunDirectoryError(f"{path} is a file; choose another --out")
        elif any(path.iterdir()):
            raise RunDirectoryError(
                f"{path} exists and is not empty; choose another --out, or go on with it by"
                f" --resume {path}"
            )
        yield
    except BaseException as error:
        if made:
            shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError):
            raise RunDirectoryError(
                f"{path}: cannot be made ({error.strerror}); make room there or choose another"
                " --out"
            ) from error
        raise


def _read_state(path: Path) -> RunState:
    """Return what `state.json` of a run directory says; see `RunDirectory.resume`."""
    state_path = path / "state.json"
    if not path.is_dir():
        raise RunDirectoryError(
            f"{path}: no such run directory; fedtrain runs [DIR] lists what there is"
        )
    if not state_path.is_file():
        raise RunDirectoryError(
            f"{path} holds no committed run (no state.json); start it anew with --out"
        )
    try:
        return RunState(**json.loads(state_path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AuditError(f"{state_path} is damaged; the run cannot be resumed") from error


def describe_environment(config: Config, fingerprint: str | None) -> dict[str, Any]:
    """Return versions, platform, seed, commit and data fingerprint of a run."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "seed": config.run.seed,
        "git_commit": _find_commit(),
        "data_fingerprint": fingerprint,
    }


def _find_commit() -> str | None:
    """Return the commit of the checkout that this file belongs to, or None outside of one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _to_lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(record, allow_nan=False)}\n" for record in records if record)


def _save_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays to a file that no commit names yet, so that nobody reads half of it."""
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
