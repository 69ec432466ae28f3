"""Faults planted on purpose: an auditor that finds none of them is worth nothing.

A plant leaves the claim as it is and breaks what runs: the noise that is really added, the clip
that is really applied, the noise stream, the masks. Nothing of a run directory is changed.
"""

from dataclasses import dataclass
from typing import Final

from fedtrain.config import Config
from fedtrain.errors import ConfigError
from fedtrain.privacy.generator import SecureGenerator

_UNCLIPPED: Final = 1e6


@dataclass(frozen=True)
class Plant:
    """A fault.

    Attributes:
        name: Stable.
        sentence: What is broken, in words.
        found_by: Methods that must find it.
        noise_divisor: The noise that is added is so many times too small.
        clips: Whether gradients are clipped to the claimed norm.
        reuses_noise: Whether every round begins with the same noise stream.
        masks: Whether masked vectors are masked.
    """

    name: str
    sentence: str
    found_by: tuple[str, ...]
    noise_divisor: float = 1.0
    clips: bool = True
    reuses_noise: bool = False
    masks: bool = True

    @property
    def method(self) -> str:
        """The name of its self-test, as a finding has it."""
        return f"self-test-{self.name.replace('/', '-')}"


NOTHING: Final = Plant("nothing", "nothing is broken", ())
PLANTS: Final = {
    plant.name: plant
    for plant in (
        Plant(
            "noise/2",
            "half of the claimed noise is added",
            ("conformance", "sentinels"),
            noise_divisor=2,
        ),
        Plant(
            "noise/4",
            "a quarter of the claimed noise is added",
            ("conformance", "sentinels"),
            noise_divisor=4,
        ),
        Plant("no-clip", "gradients are not clipped", ("conformance", "sentinels"), clips=False),
        Plant("no-mask", "masked vectors are not masked", ("masking",), masks=False),
        Plant(
            "reused-noise",
            "every round begins with the same noise",
            ("conformance",),
            reuses_noise=True,
        ),
    )
}


@dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        claim: The resolved config, whose guarantee is checked.
        running: The one that training is really built from; equal but for what is planted.
        plant: What is broken.
        seed: Of the audit's draws.
    """

    claim: Config
    running: Config
    plant: Plant
    seed: int

    def make_noise(self, round: int) -> SecureGenerator:
        """Return the generator of a round's noise, as a simulated site makes it."""
        begun = 1 if self.plant.reuses_noise else round
        return SecureGenerator.from_seed(self.seed, "audit", "noise", begun)

    def make_sampling(self, round: int) -> SecureGenerator:
        """Return the generator of a round's Poisson batches."""
        return SecureGenerator.from_seed(self.seed, "audit", "sampling", round)


def find_plant(name: str | None) -> Plant:
    """Return a plant by its name; None is none.

    Raises:
        ConfigError: There is no such plant.
    """
    if name is None:
        return NOTHING
    if name not in PLANTS:
        raise ConfigError(f"--plant {name}: unknown; choose {', '.join(PLANTS)}")
    return PLANTS[name]


def make_subject(config: Config, *, seed: int, plant: Plant = NOTHING) -> Subject:
    """Return a config's run, with a fault where one is planted.

    Args:
        config: The resolved config.
        seed: Of the audit's draws.
        plant: What to break.

    Raises:
        ConfigError: The run has nothing that the plant could break.
    """
    needs_noise = plant.noise_divisor != 1 or not plant.clips or plant.reuses_noise
    if needs_noise and not config.privacy.covers_records:
        raise ConfigError(
            f"--plant {plant.name}: privacy.unit = '{config.privacy.unit}' has no noise of DP-SGD"
            " to break; audit a run with privacy.unit = 'record'"
        )
    if not plant.masks and config.secure_aggregation.mode != "protocol":
        raise ConfigError(
            f"--plant {plant.name}: secure_aggregation.mode ="
            f" '{config.secure_aggregation.mode}' masks nothing; audit a run with mode = 'protocol'"
        )
    return Subject(config, _break(config, plant), plant, seed)


def _break(config: Config, plant: Plant) -> Config:
    privacy = config.privacy
    noise = privacy.noise_multiplier
    if noise is None or (plant.noise_divisor == 1 and plant.clips):
        return config
    changes = {"noise_multiplier": noise / plant.noise_divisor}
    if not plant.clips:  # the noise's absolute deviation stays
        changes = {
            "noise_multiplier": noise / _UNCLIPPED,
            "max_grad_norm": privacy.max_grad_norm * _UNCLIPPED,
        }
    return config.model_copy(update={"privacy": privacy.model_copy(update=changes)})
