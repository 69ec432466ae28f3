"""Where a coordinator's random draws come from: who takes part, and the noise that hides how many.

A simulation draws from its seed, so that it can be repeated. A coordinator whose state lasts draws
from a secret of the run, which it keeps: a round that a restart interrupted goes on with the same
cohort. One whose state does not last draws from the operating system.
"""

from dataclasses import dataclass
from typing import Self

from fedtrain.errors import ConfigError
from fedtrain.privacy.generator import SecureGenerator

SECRET_BYTES = 32


@dataclass(frozen=True, repr=False)
class Draws:
    """A coordinator's draws in one run.

    Attributes:
        simulated: Whether they come from the run's seed, which is no secret.
    """

    simulated: bool
    _seed: int | None

    @classmethod
    def from_seed(cls, seed: int) -> Self:
        """Return the draws of a simulation."""
        return cls(True, seed)

    @classmethod
    def from_secret(cls, secret: bytes) -> Self:
        """Return the draws of a run whose secret the coordinator keeps, 32 bytes of one run only.

        Raises:
            ConfigError: The secret has another length.
        """
        if len(secret) != SECRET_BYTES:
            raise ConfigError(f"a run's secret has {SECRET_BYTES} bytes, not {len(secret)}")
        return cls(False, int.from_bytes(secret, "big"))

    @classmethod
    def from_system(cls) -> Self:
        """Return draws that nobody can repeat."""
        return cls(False, None)

    def make_generator(self, purpose: str, round: int) -> SecureGenerator:
        """Return the CSPRNG for one purpose of one round."""
        if self._seed is None:
            return SecureGenerator.from_system()
        return SecureGenerator.from_seed(self._seed, purpose, round)
