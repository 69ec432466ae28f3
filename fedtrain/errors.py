"""The errors that fedtrain raises on purpose, by who must act.

    FedtrainError
    ├── OperatorError      whoever started the command
    │   ├── ConfigError        a config that cannot run            exit 2
    │   ├── RunDirectoryError  a run directory, a full disk        exit 3
    │   └── RunFailedError     a run that could not go on          exit 4
    ├── SiteError          the owner of a site: policy and budget  exit 5
    ├── DataError          the owner of the data                   exit 6
    ├── PeerError          the other end of a message              exit 7
    └── AuditError         the auditor: what does not add up       exit 8

A message is one line: the value, the bound that it breaks, and the cure.
"""

from typing import ClassVar


class FedtrainError(Exception):
    """Anything that fedtrain refuses; printed as one line, without a traceback.

    Attributes:
        code: Stable name of the error's kind, part of the public interface.
        exit_code: What the command line exits with.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1


class OperatorError(FedtrainError):
    """Whoever started the command must act."""

    code = "operator"


class ConfigError(OperatorError):
    """The configuration is wrong or impossible."""

    code = "config"
    exit_code = 2


class RunDirectoryError(OperatorError):
    """The run directory cannot be used: it exists, is another run's, or the disk is full."""

    code = "run-directory"
    exit_code = 3


class RunFailedError(OperatorError):
    """The run could not go on; what was committed stays."""

    code = "run-failed"
    exit_code = 4


class SiteError(FedtrainError):
    """The owner of a site must act: its policy or its budget refuses."""

    code = "site"
    exit_code = 5


class DataError(FedtrainError):
    """The owner of the data must act: the data cannot be read or used."""

    code = "data"
    exit_code = 6


class PeerError(FedtrainError):
    """The other end sent something unusable: wrong shape, not finite, out of turn."""

    code = "peer"
    exit_code = 7


class AuditError(FedtrainError):
    """A recorded number, digest or signature does not hold."""

    code = "audit"
    exit_code = 8
