"""The audit that follows the last round, where `[audit]` names methods."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedtrain.audit.findings import Finding
from fedtrain.audit.methods import Method
from fedtrain.audit.stage import choose_methods, open_context, perform_audit
from fedtrain.config import Config


def verify_audit(config: Config) -> None:
    """Refuse a name that no method has, before a run.

    Raises:
        ConfigError: `audit.methods` has one.
    """
    if config.audit.methods:
        choose_methods(config.audit.methods)


def audit_run(path: Path, config: Config, *, quiet: bool) -> Sequence[Finding]:
    """Audit a finished run by the methods that its config names; by none where it names none.

    Args:
        path: The run directory.
        config: As the run was begun, with where its data is.
        quiet: Whether to keep silent about the progress.

    Raises:
        FedtrainError: A method could not go on; what the ones before it found is kept.
    """
    if not config.audit.methods:
        return ()
    context = replace(open_context(path), config=config)
    methods = choose_methods(config.audit.methods)
    return perform_audit(context, methods, None if quiet else _announce)


def _announce(method: Method) -> None:
    sys.stderr.write(f"audit, {method.name}: {method.headline}\n")
