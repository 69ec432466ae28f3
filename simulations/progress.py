"""What a person sees while a simulation runs: one live line on standard error."""

import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fedtrain.report.tables import format_epsilon

_PLAIN_SECONDS = 5.0


class ProgressLine:
    """Round, loss, accuracy, epsilon so far and time left.

    On a terminal a line that is redrawn; elsewhere a plain line every few seconds.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("round {task.completed}/{task.total}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self._console,
            refresh_per_second=4,
        )
        self._task: TaskID | None = None
        self._rounds = 0
        self._first = 0
        self._started = 0.0
        self._printed = 0.0

    def on_start(self, *, rounds: int, done: int, sites: int) -> None:
        """Show the line."""
        self._rounds, self._first, self._started = rounds, done, time.monotonic()
        state = f"{sites} sites"
        if self._console.is_terminal:
            self._task = self._progress.add_task("", total=rounds, completed=done, state=state)
            self._progress.start()
        else:
            self._write(f"{state}, {rounds} rounds" + (f", {done} done before" if done else ""))

    def on_round(self, metrics: Mapping[str, float]) -> None:
        """Move the line on."""
        round_, state = int(metrics["round"]), describe_round(metrics)
        if self._task is not None:
            self._progress.update(self._task, completed=round_, state=state)
            return
        now = time.monotonic()
        if now - self._printed < _PLAIN_SECONDS and round_ != self._rounds:
            return
        self._printed = now
        left = (now - self._started) / max(round_ - self._first, 1) * (self._rounds - round_)
        self._write(f"round {round_}/{self._rounds}  {state}  {left:.0f} s left")

    def close(self) -> None:
        """Leave the last state of the line standing."""
        self._progress.stop()

    def _write(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class Silence:
    """Shows nothing."""

    def on_start(self, *, rounds: int, done: int, sites: int) -> None:
        """Show nothing."""

    def on_round(self, metrics: Mapping[str, float]) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to close."""


def describe_round(metrics: Mapping[str, float]) -> str:
    """Return the state of a run after a round in a few words."""
    shown = (
        ("train_loss", "loss {:.3f}"),
        ("val_accuracy", "validation {:.1%}"),
        ("test_accuracy", "test {:.1%}"),
    )
    parts = [form.format(metrics[key]) for key, form in shown if key in metrics]
    if "epsilon" in metrics:
        parts.append(f"epsilon {format_epsilon(metrics['epsilon'])}")
    if "site_epsilon" in metrics:
        parts.append(f"of a site {format_epsilon(metrics['site_epsilon'])}")
    lost = int(metrics["cohort"]) - int(metrics["survivors"])
    return "  ".join([*parts, *([f"{lost} dropped"] if lost else [])])
