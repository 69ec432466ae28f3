"""An audit from beginning to end: which methods, in which order, and what is kept of them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from fedtrain.audit.evidence import Evidence
from fedtrain.audit.files import check_config
from fedtrain.audit.findings import FOLDER, Finding, save_finding
from fedtrain.audit.methods import AuditContext, Method, load_methods
from fedtrain.config import Config, compute_digest, load_config
from fedtrain.errors import ConfigError, RunDirectoryError
from fedtrain.resolution import resolve
from fedtrain.seal import extend_seal

Report = Callable[[Method], None]


def choose_methods(names: Sequence[str]) -> list[Method]:
    """Return methods by name, in the order given; without names all that need the run alone.

    Raises:
        ConfigError: A name is not known.
    """
    known = load_methods()
    for name in names:
        if name not in known:
            raise ConfigError(f"audit method '{name}' is unknown; choose {', '.join(known)}")
    if not names:
        return [method for method in known.values() if method.needs == "run"]
    return [known[name] for name in dict.fromkeys(names)]


def open_context(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    seed: int | None = None,
    quick: bool | None = None,
    plant: str | None = None,
    inverted_records: int | None = None,
    label_records: int | None = None,
) -> AuditContext:
    """Return what the methods are given, by the run's own `[audit]`.

    Args:
        run: The run directory.
        overrides: Changes of keys that change nothing that was computed, such as `data.path`.
        seed: By default the config's.
        quick: By default the config's.
        plant: Name of a fault to plant.
        inverted_records: By default the config's.
        label_records: By default the config's.

    Raises:
        ConfigError: An override changes the run.
        RunDirectoryError: There is no run.
        AuditError: The config is not the one that the run was begun with.
    """
    config = _load_config(run, overrides)
    if config.statistics is not None:
        raise ConfigError(
            f"{run} asked for statistics and trained nothing; an audit attacks a model: fedtrain"
            " verify checks this run"
        )
    section = config.audit
    return AuditContext(
        run=run,
        config=config,
        seed=section.seed if seed is None else seed,
        quick=section.quick if quick is None else quick,
        out=run / FOLDER,
        confidence=section.confidence,
        canaries=section.canaries,
        plant=plant,
        inverted_records=inverted_records or section.inverted_records,
        label_records=label_records or section.label_records,
    )


def perform_audit(
    context: AuditContext, methods: Sequence[Method], report: Report | None = None
) -> list[Finding]:
    """Run methods one after the other and keep what each finds, as soon as it has.

    Args:
        context: What is audited; its `out` is made where missing.
        methods: In order.
        report: Told of each method before it runs.

    Returns:
        The findings, saved in the run directory and sealed with it.

    Raises:
        FedtrainError: A method could not go on; what the ones before it found is kept.
    """
    findings = []
    try:
        context.out.mkdir(exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{context.out}: cannot be made ({error.strerror})") from error
    with _one_thread():
        for method in methods:
            if report is not None:
                report(method)
            for finding in method.run(context):
                save_finding(context.run, finding)
                findings.append(finding)
            extend_seal(context.run)
    return findings


def try_methods(context: AuditContext, methods: Sequence[Method]) -> list[Finding]:
    """Run methods and keep nothing of them in the run directory."""
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        tried = replace(context, out=Path(folder))
        return [finding for method in methods for finding in method.run(tried)]


def _load_config(run: Path, overrides: Sequence[str]) -> Config:
    path = run / "config.toml"
    if not path.exists():
        raise RunDirectoryError(f"{run} is no run directory: it has no config.toml")
    evidence = Evidence(run)
    check_config(evidence)
    config = evidence.config
    changed = resolve(load_config(path, overrides)) if overrides else config
    if compute_digest(changed) != compute_digest(config):
        raise ConfigError(
            f"--set {' '.join(overrides)} changes what the run computed; change only data.path or"
            " the like"
        )
    return changed


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, so that a finding can be repeated to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
