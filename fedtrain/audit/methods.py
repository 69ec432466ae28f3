"""The methods of `fedtrain audit`: one table, to which other packages add by an entry point.

A method is found by its name. What it needs to run (torch, matplotlib, a simulation) is loaded
when it runs, so that the table is cheap to read.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from fedtrain.config import Config
from fedtrain.errors import ConfigError

if TYPE_CHECKING:
    from fedtrain.audit.findings import Finding

GROUP: Final = "fedtrain.audits"
Needs = Literal["run", "simulation"]


@dataclass(frozen=True)
class AuditContext:
    """What a method is given.

    Attributes:
        run: The run directory to audit; a method only reads it.
        config: Its resolved config.
        seed: Of the method's own draws, so that a finding can be repeated.
        quick: Whether a minute on one core must do; sample sizes are the smaller ones then.
        out: The existing folder that pictures go to.
        confidence: Of bounds and intervals.
        canaries: How many, where a method has any and is not `quick`.
        plant: Name of a fault in `fedtrain.audit.plants`; None is the run as it is.
        inverted_records: Records that are searched for; None: as many as the method chooses.
        label_records: Most records of a site in the step that is read; None: likewise.
    """

    run: Path
    config: Config
    seed: int
    quick: bool
    out: Path
    confidence: float = 0.95
    canaries: int = 5000
    plant: str | None = None
    inverted_records: int | None = None
    label_records: int | None = None


Audit = Callable[[AuditContext], "list[Finding]"]


@dataclass(frozen=True)
class Method:
    """One way to audit.

    Attributes:
        name: Stable; findings carry it.
        headline: What it does, in a line.
        needs: "run": the run directory and, where it attacks records, the data that the config
            names; "simulation": federations that are run for the purpose besides.
        run: Does it.
    """

    name: str
    headline: str
    needs: Needs
    run: Audit


def load_when_run(reference: str) -> Audit:
    """Return a method's function that is imported when it is first called.

    Args:
        reference: `module:function`.
    """

    def run(context: AuditContext) -> "list[Finding]":
        module, _, name = reference.partition(":")
        function: Audit = getattr(importlib.import_module(module), name)
        return function(context)

    return run


METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method(
            "conformance",
            "noise, clip, sampling and divisor of the real step, against the plan",
            "run",
            load_when_run("fedtrain.audit.conformance:audit_conformance"),
        ),
        Method(
            "sentinels",
            "a lower bound of a record's epsilon, for whoever sees every step",
            "run",
            load_when_run("fedtrain.audit.record_level:audit_sentinels"),
        ),
        Method(
            "black-box",
            "a lower bound of a record's epsilon, for whoever has the final model",
            "run",
            load_when_run("fedtrain.audit.black_box:audit_black_box"),
        ),
        Method(
            "masking",
            "whether one site's masked vector can be told from random numbers",
            "run",
            load_when_run("fedtrain.audit.masking:audit_masking"),
        ),
        Method(
            "single-step",
            "a lower bound of one noisy step's, or secure sum's, epsilon by many trials",
            "run",
            load_when_run("fedtrain.audit.single_step:audit_single_step"),
        ),
        Method(
            "inversion",
            "records rebuilt from a step's gradient: bare, noised, masked and summed, as pictures",
            "run",
            load_when_run("fedtrain.audit.reconstruction:audit_inversion"),
        ),
        Method(
            "first-layer",
            "records and attributes read off the gradient of a first linear layer",
            "run",
            load_when_run("fedtrain.audit.first_layer:audit_first_layer"),
        ),
        Method(
            "label-leakage",
            "each site's label distribution, from its step",
            "run",
            load_when_run("fedtrain.audit.label_leakage:audit_label_leakage"),
        ),
    )
}


def load_methods() -> dict[str, Method]:
    """Return all methods by name: the library's, then those of the entry points.

    Each entry point of the group `fedtrain.audits` is a tuple of methods.

    Raises:
        ConfigError: Two methods have one name.
    """
    methods = dict(METHODS)
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        found: Iterable[Method] = entry.load()
        for method in found:
            if method.name in methods:
                raise ConfigError(
                    f"{entry.value} has a method '{method.name}', which there is already; rename it"
                )
            methods[method.name] = method
    return methods
