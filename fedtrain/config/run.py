"""Sections on what a run is called and how a simulation computes it."""

from typing import Literal

from pydantic import Field

from fedtrain.config.section import Section


class RunSection(Section):
    """What the run is called, where it goes, and its seed."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the run."
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="Seed of every random draw of a simulation and of the start model.",
    )
    trial: int | None = Field(
        None,
        ge=0,
        description=(
            "Number of the run in a study, which sets it under privacy: a simulation's trials then"
            " draw noise and samples each by itself. Default: the run is no trial."
        ),
    )
    directory: str = Field("runs", description="Folder that run directories are made in.")


class SimulationSection(Section):
    """How a simulation is computed; none of it changes a result."""

    workers: int = Field(
        1, ge=1, le=256, description="Worker processes; 1 runs in the command's own process."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] | None = Field(
        None,
        description=(
            "Where models are computed; auto: a GPU where there is one, whose sums round"
            " differently from a CPU's. Default: cpu."
        ),
    )
    sites_directory: str | None = Field(
        None,
        description=(
            "Folder with one folder a site, made where missing: its policy, and the ledger of its"
            " lifetime budget, which last from run to run. Default: sites have neither."
        ),
    )
