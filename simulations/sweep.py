"""Trials of a study: simulations with other hyper-parameters, chosen by Optuna, kept in SQLite.

A folder holds `study.db` (Optuna's own storage, so that a study that was interrupted goes on),
`trials/` (a run directory each), `best.toml` and `sweep.png`. Trials compose: what they cost
together is counted before the first begins, each at its full length.
"""

import fcntl
import json
import multiprocessing
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedtrain.config import Config, load_config, to_toml
from fedtrain.errors import ConfigError, FedtrainError, RunFailedError
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.privacy.events import Event

from .opening import open_config
from .simulate import simulate, start
from .sweep_study import (
    Choice,
    Study,
    build_trial_config,
    compute_joint_costs,
    compute_study_digest,
    list_events,
    list_overrides,
    list_site_events,
    load_study,
    verify_objective,
    verify_space,
)

STUDY_NAME: Final = "sweep"
_STARTUP: Final = 5  # trials before the median says anything


class PrunedError(RunFailedError):
    """A trial was worse than the median of those before it."""


class MetricError(ConfigError):
    """No trial of a study has its metric."""


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    Attributes:
        state: `complete`, `pruned`, `fail` or `running`.
        value: The metric; None where it has none.
        values: Its hyper-parameters.
    """

    number: int
    state: str
    value: float | None
    values: dict[str, Any]


@dataclass(frozen=True)
class SweepResult:
    """A study as far as it is.

    Attributes:
        trials: In the order in which they began.
        best: The best complete one; None where there is none.
        costs: What all trials cost together, of each unit that is protected; none where data is
            public. A trial counts in full, however early it was pruned or failed.
        scenario: The best scenario, written out; None where there is none.
    """

    study: Study
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    costs: tuple[PrivacyCost, ...]
    scenario: Path | None


def import_optuna() -> Any:
    """Return Optuna.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("Optuna is not installed; pip install 'fedtrain[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def sweep(path: Path, folder: Path, *, workers: int | None = None) -> SweepResult:
    """Run a study, or what is left of it.

    Args:
        path: The study file.
        folder: Where it is kept; one that has trials of this study goes on.
        workers: Processes; by default the study's.

    Raises:
        ConfigError: The study or its scenario cannot run, or the folder is another study's.
        RunFailedError: No trial was complete.
    """
    study, scenario = load_study(path)
    _verify(study, scenario)
    _open_folder(study, scenario, folder)
    with _locking(folder):
        _run_left(path, study, folder, workers or study.workers)
    return _collect(study, scenario, folder)


def _run_left(path: Path, study: Study, folder: Path, workers: int) -> None:
    """Run the trials that are left of the planned ones, shared out to processes."""
    kept = _open_storage(study, folder)
    _end_interrupted(kept)
    left = study.count_trials() - len(kept.trials)
    shares = _share_out(max(left, 0), workers)
    if len(shares) == 1:
        _work(path, folder, shares[0], study.seed + len(kept.trials))
    elif shares:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(len(shares), mp_context=context) as pool:
            jobs = [
                pool.submit(_work, path, folder, count, study.seed + len(kept.trials) + index)
                for index, count in enumerate(shares)
            ]
            for job in jobs:
                job.result()


def compute_planned_sweep_costs(path: Path) -> tuple[Study, tuple[PrivacyCost, ...]]:
    """Return a study and what all its trials cost at the scenario's own values.

    Raises:
        ConfigError: The study or its scenario cannot run.
    """
    study, scenario = load_study(path)
    _verify(study, scenario)
    config = build_trial_config(study, scenario, {})
    return study, _compute_costs(study, [config] * study.count_trials())


class _Reporter:
    """Hands a trial's metric on to the pruner."""

    def __init__(self, trial: Any, metric: str) -> None:
        self._trial = trial
        self._metric = metric

    def on_start(self, *, rounds: int, done: int, sites: int) -> None:
        """Nothing to show."""

    def on_round(self, metrics: Mapping[str, float]) -> None:
        """Report the metric where the round has it."""
        value = metrics.get(self._metric)
        found = sorted(name for name in metrics if name.startswith("val_"))
        if found and self._metric not in metrics:
            raise MetricError(
                f"metric = '{self._metric}': these trials have {', '.join(found)}; choose one"
            )
        if value is None:
            return
        self._trial.report(float(value), int(metrics["round"]))
        if self._trial.should_prune():
            raise PrunedError(f"pruned: {self._metric} = {value:g} is worse than the median")

    def close(self) -> None:
        """Nothing to close."""


def _verify(study: Study, scenario: Path) -> None:
    verify_space(study, scenario)
    verify_objective(study, build_trial_config(study, scenario, {}))


def _open_folder(study: Study, scenario: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    digest, path = compute_study_digest(study, scenario), folder / "sweep.json"
    if not path.exists():
        path.write_text(json.dumps({"digest": digest}) + "\n", encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8"))["digest"] != digest:
        raise ConfigError(f"{folder} holds another study's trials; choose another --out")


@contextmanager
def _locking(folder: Path) -> Iterator[None]:
    """Keep a second command out of the folder: together they would run more trials than planned."""
    with (folder / "sweep.lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"another process is running the study in {folder}; wait for it, or choose another"
                " --out"
            ) from error
        yield


def _open_storage(study: Study, folder: Path, *, seed: int = 0) -> Any:
    optuna = import_optuna()
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "grid": lambda: optuna.samplers.GridSampler(study.build_grid(), seed=seed),
    }
    pruner = optuna.pruners.NopPruner()
    if study.pruner == "median":
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
    return optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}",
        study_name=STUDY_NAME,
        sampler=samplers[study.sampler](),
        pruner=pruner,
        direction="maximize" if study.maximises else "minimize",
        load_if_exists=True,
    )


def _end_interrupted(kept: Any) -> None:
    """Count trials whose process is gone as failed: they cost what they cost."""
    optuna = import_optuna()
    for trial in kept.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        kept.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _share_out(trials: int, workers: int) -> list[int]:
    """Return how many trials each worker runs: in all no more than were planned."""
    shares = [trials // workers + (index < trials % workers) for index in range(workers)]
    return [share for share in shares if share]


def _work(path: Path, folder: Path, trials: int, seed: int) -> None:
    """Run trials in this process."""
    optuna = import_optuna()
    study, scenario = load_study(path)
    kept = _open_storage(study, folder, seed=seed)
    base = _list_all_events(build_trial_config(study, scenario, {}))
    wrong: list[MetricError] = []

    def objective(trial: Any) -> float:
        values = {name: _suggest(trial, name, space) for name, space in study.space.items()}
        try:
            return _run_trial(study, scenario, folder, trial, values=values, base=base)
        except PrunedError as error:
            raise optuna.TrialPruned(str(error)) from error
        except FedtrainError as error:
            trial.set_user_attr("reason", str(error))
            if isinstance(error, MetricError):  # so would all others
                wrong.append(error)
                kept.stop()
            raise

    kept.optimize(objective, n_trials=trials, catch=(FedtrainError,), callbacks=[_show])
    if wrong:
        raise wrong[0]


def _run_trial(
    study: Study,
    scenario: Path,
    folder: Path,
    trial: Any,
    *,
    values: Mapping[str, Any],
    base: list[Event],
) -> float:
    config = build_trial_config(study, scenario, values, number=trial.number)
    verify_objective(study, config)
    if study.sampler == "tpe" and _list_all_events(config) != base and not study.public_data:
        raise ConfigError(
            "the trial changes what is released, by a choice that earlier trials made; search"
            " privacy, sampling and rounds with sampler = 'grid' or 'random', which choose ahead"
        )
    opened = open_config(config)
    run = start(opened, folder / "trials" / f"{trial.number:05d}")
    simulate(run, _Reporter(trial, study.metric))
    lines = [line[study.metric] for line in run.read_metrics() if study.metric in line]
    if not lines or lines[-1] is None:
        raise RunFailedError(f"the trial has no {study.metric}; choose a metric of the run")
    if config.federation.select != "best":
        return float(lines[-1])
    finite = [float(line) for line in lines if line is not None]
    return max(finite) if study.maximises else min(finite)


def _list_all_events(config: Config) -> list[Event]:
    return list_events(config) + list_site_events(config)


def _suggest(trial: Any, name: str, space: Any) -> Any:
    if isinstance(space, tuple):
        return trial.suggest_categorical(name, _list_choices(space))
    if space.whole:
        return trial.suggest_int(name, space.low, space.high, step=space.step or 1, log=space.log)
    return trial.suggest_float(name, space.low, space.high, step=space.step, log=space.log)


def _list_choices(choices: Choice) -> list[Any]:
    return list(choices)


def _show(_: Any, trial: Any) -> None:
    """Say on standard error how a trial ended."""
    value = "" if trial.value is None else f" {trial.value:.5g}"
    reason = f" ({trial.user_attrs['reason']})" if "reason" in trial.user_attrs else ""
    values = " ".join(f"{name}={value_}" for name, value_ in trial.params.items())
    state = trial.state.name.lower()
    sys.stderr.write(f"trial {trial.number} {state}{value} {values}{reason}\n")


def _collect(study: Study, scenario: Path, folder: Path) -> SweepResult:
    trials = tuple(
        TrialResult(trial.number, trial.state.name.lower(), trial.value, dict(trial.params))
        for trial in _open_storage(study, folder).get_trials(deepcopy=False)
    )
    complete = [one for one in trials if one.state == "complete" and one.value is not None]
    if not complete:
        raise RunFailedError(
            f"none of the {len(trials)} trials was complete; {folder / 'trials'} has their logs"
        )
    sign = -1 if study.maximises else 1
    best = min(complete, key=lambda one: sign * (one.value or 0.0))
    overrides = list_overrides(study, best.values)
    text = to_toml(load_config(scenario, overrides))
    head = f"# The best of {len(trials)} trials by {study.metric} ({best.value:.5g}).\n"
    target = folder / "best.toml"
    target.write_text(head + text, encoding="utf-8")
    costs = _compute_costs(study, list(_build_begun(study, scenario, trials)))
    return SweepResult(study, trials, best, costs, target)


def _build_begun(study: Study, scenario: Path, trials: Iterable[TrialResult]) -> Iterator[Config]:
    """Yield the configs of trials that had one; another never began."""
    for trial in trials:
        with suppress(ConfigError):
            yield build_trial_config(study, scenario, trial.values)


def _compute_costs(study: Study, configs: Sequence[Config]) -> tuple[PrivacyCost, ...]:
    if study.public_data or not configs:
        return ()
    return compute_joint_costs(
        configs[0],
        [event for config in configs for event in list_events(config)],
        [event for config in configs for event in list_site_events(config)],
        runs=len(configs),
    )
