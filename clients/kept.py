"""What a site keeps of a run from round to round and never sends: control variates, own layers.

    FOLDER/
      000007.0000012.safetensors    site 7 after round 12

A simulation keeps it in the run's directory, whatever process stands for the site; a deployed site
in a folder of its own. What is kept after round r is read in later rounds only: a round that is run
again, after a kill or in another attempt, begins from the same and ends with the same bytes.

Shapes: d is the length of the flat parameter vector.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedtrain.durable import replace_file
from fedtrain.errors import SiteError
from fedtrain.params import Vector


@dataclass(frozen=True)
class Kept:
    """What one site keeps of one run.

    Attributes:
        folder: Made where it is missing.
        index: The site's number.
    """

    folder: Path
    index: int

    def load(self, *, before: int) -> dict[str, Vector]:
        """Return what was kept last before a round: named vectors, `(d,)`; empty at first.

        Raises:
            SiteError: A file cannot be read.
        """
        rounds = [round_ for round_ in self._list_rounds() if round_ < before]
        if not rounds:
            return {}
        path = self._name(max(rounds))
        try:
            return {n: array.astype(np.float32) for n, array in load(path.read_bytes()).items()}
        except (OSError, SafetensorError) as error:
            raise SiteError(
                f"{path} cannot be read ({error}); restore it, or leave the run"
            ) from error

    def save(self, round: int, arrays: Mapping[str, Vector]) -> None:
        """Keep vectors after a round, all or nothing; what is two rounds old is forgotten.

        Raises:
            SiteError: They cannot be written.
        """
        path = self._name(round)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = save({name: np.ascontiguousarray(a) for name, a in arrays.items()})
            replace_file(path, content, mode=0o600)
            earlier = sorted(one for one in self._list_rounds() if one < round)
            for old in earlier[:-1]:
                self._name(old).unlink(missing_ok=True)
        except OSError as error:
            raise SiteError(f"{path} cannot be written ({error.strerror}); make room") from error

    def _name(self, round: int) -> Path:
        return self.folder / f"{self.index:06d}.{round:07d}.safetensors"

    def _list_rounds(self) -> list[int]:
        names = self.folder.glob(f"{self.index:06d}.*.safetensors")
        return [int(path.name.split(".")[1]) for path in names]


def open_kept(folder: Path, run: str, index: int) -> Kept:
    """Return what a deployed site keeps of a run, below its own folder."""
    return Kept(folder / hashlib.sha256(run.encode()).hexdigest()[:32], index)
