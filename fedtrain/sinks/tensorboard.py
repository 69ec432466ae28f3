"""A run's figures as TensorBoard event files."""

from pathlib import Path
from typing import Any, Final, Self

from fedtrain.errors import ConfigError
from fedtrain.report.run import Run
from fedtrain.sinks.content import clean_name, describe_run, list_points
from fedtrain.use.extras import require

EVENTS: Final = "events.out.tfevents.*"
GROUPS: Final = {
    **dict.fromkeys(("epsilon", "delta", "update_norm"), "privacy"),
    **dict.fromkeys(("seconds", "bytes_up", "bytes_down"), "cost"),
    **dict.fromkeys(("cohort", "survivors", "threshold"), "sums"),
}
SPLITS: Final = ("train", "val", "test", "own")


class TensorBoardSink:
    """Writes event files into a folder that has none yet."""

    def __init__(self, folder: Path, writer: Any) -> None:
        self.folder = folder
        self._writer = writer
        self._sent = 0

    @classmethod
    def open(cls, folder: Path, run: Run) -> Self:
        """Begin with what does not change: the config.

        Raises:
            ConfigError: The extra is not installed, the folder holds events, or cannot be made.
        """
        require("tensorboard", extra="tensorboard")
        if any(folder.glob(EVENTS)):
            raise ConfigError(
                f"{folder}: holds events already; remove it or choose another --out, or each figure"
                " would be drawn twice"
            )
        module = require("torch.utils.tensorboard", extra="tensorboard")
        try:
            writer = module.SummaryWriter(str(folder))
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be made ({error.strerror})") from error
        text = (run.path / "config.toml").read_text(encoding="utf-8")
        writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))
        return cls(folder, writer)

    def send(self, run: Run) -> int:
        """Write the rounds that are not written yet; return the last one."""
        for point in list_points(run, after=self._sent):
            tag = name_tag(point.key)
            self._writer.add_scalar(tag, point.value, point.round, walltime=point.time)
        self._sent = max(self._sent, run.rounds_done)
        self._writer.flush()
        return self._sent

    def close(self, run: Run) -> None:
        """Write what the run is and what it guarantees, as text, and end."""
        for name, text in describe_run(run).items():
            self._writer.add_text(name, text, self._sent)
        self._writer.close()

    def describe(self) -> str:
        """Say how to look at it."""
        return f"tensorboard --logdir {self.folder.parent}"


def name_tag(key: str) -> str:
    """Return the tag of a figure: `test/accuracy` for `test_accuracy`, `cost/seconds`."""
    split, _, rest = key.partition("_")
    if split in SPLITS and rest:
        return clean_name(f"{split}/{rest}")
    group = next((name for part, name in GROUPS.items() if key.endswith(part)), "other")
    return clean_name(f"{group}/{key}")
