"""What a site's ledger refuses.

    SiteError
    ├── BudgetError   the lifetime budget does not allow it
    └── LedgerError   the ledger's folder cannot be used
    AuditError        an entry that does not hold: nothing is released any more

`BudgetError.reason` is a stable name, part of the public interface: a key of `BUDGET_REASONS`,
whose text is all that the coordinator is told.
"""

from typing import Final

from fedtrain.errors import SiteError

BUDGET_REASONS: Final = {
    "spent": "spent",
    "misfit": "run does not fit",
    "replay": "round was answered otherwise or is over",
}


class BudgetError(SiteError):
    """The lifetime budget of a data set does not allow a run or a round.

    Attributes:
        reason: A key of `BUDGET_REASONS`.
    """

    code = "budget"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LedgerError(SiteError):
    """The ledger's folder cannot be read or written, or is not what was asked for."""

    code = "ledger"
