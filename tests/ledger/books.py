"""A small ledger, terms and a clock for the tests."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedtrain.ledger.budget import Budget
from fedtrain.ledger.site_ledger import SiteLedger, Terms
from fedtrain.privacy.events import PoissonSampledGaussian
from fedtrain.secagg.roster import Identity

IDENTITY = Identity.from_seed(1, "site")
BUDGET = Budget(8.0, 1e-6)
ROUND = PoissonSampledGaussian(1.5, 0.05, 100)  # 13 of them fit
CONFIG = "c" * 64
MODEL = "d" * 64
START = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    """A clock that is a second later each time."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


def make_terms(run: str = "run", rounds: int = 3, **changes: object) -> Terms:
    fields = {"config_digest": CONFIG, "unit": "record", "event": ROUND, **changes}
    return Terms(run=run, rounds=rounds, **fields)


def create(folder: Path, budget: Budget = BUDGET) -> SiteLedger:
    return SiteLedger.create(
        folder / "book", "heart", budget=budget, identity=IDENTITY, clock=Clock()
    )


def open_again(ledger: SiteLedger, **options: object) -> SiteLedger:
    return SiteLedger(ledger.folder, IDENTITY, clock=Clock(), **options)


def release(ledger: SiteLedger, round: int, payload: bytes = b"update", run: str = "run"):
    return ledger.release(run, round, model_digest=MODEL, compute=lambda: payload)


def fill(folder: Path) -> SiteLedger:
    """A ledger with two runs, four releases and a closed run: eight entries."""
    ledger = create(folder)
    ledger.reserve(make_terms("run", 3))
    ledger.reserve(make_terms("other", 4, config_digest="e" * 64))
    release(ledger, 1, b"one")
    release(ledger, 1, b"two", "other")
    release(ledger, 2, b"three")
    release(ledger, 3, b"four", "other")
    ledger.close("run")
    return ledger
