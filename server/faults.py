"""What the coordinator itself refuses, or stops for."""

from fedtrain.errors import OperatorError


class CoordinatorError(OperatorError):
    """The coordinator's folder cannot be used: missing, in use, damaged, or the disk is full."""

    code = "coordinator"
    exit_code = 3


class RunInterrupted(Exception):  # noqa: N818 - no error: somebody asked for it
    """A run is to leave its thread: an operator stopped it, or the coordinator ends."""
