"""Several processes, with runs of different federations, on one ledger."""

import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

from fedtrain.ledger.faults import BudgetError
from fedtrain.ledger.site_ledger import SiteLedger
from fedtrain.ledger.verify import verify_ledger
from tests.ledger.books import IDENTITY, MODEL, create, make_terms, release

FORK = get_context("fork")


def spend(folder, run, start, results):
    """Reserve and release one round after the other until the budget refuses."""
    ledger = SiteLedger(folder, IDENTITY)
    start.wait(30)
    released = 0
    for number in range(1, 10):
        name = f"{run}-{number}"
        try:
            ledger.reserve(make_terms(name, 1))
            release(ledger, number, name.encode(), name)
        except BudgetError:
            continue
        released += 1
    results.put(released)


def answer(folder, payload, start, results):
    """Release the same round of the same run as the others, each with bytes of its own."""
    ledger = SiteLedger(folder, IDENTITY)
    start.wait(30)

    def compute():
        time.sleep(0.05)
        return payload

    released = ledger.release("run", 1, model_digest=MODEL, compute=compute)
    results.put((released.payload, released.repeated))


def race(folder, target, arguments):
    start, results = FORK.Barrier(len(arguments)), FORK.Queue()
    processes = [
        FORK.Process(target=target, args=(folder, argument, start, results))
        for argument in arguments
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
    return found


def test_processes_that_race_for_the_last_rounds_never_overspend(tmp_path):
    ledger = create(tmp_path)
    released = race(ledger.folder, spend, ("a", "b", "c", "d"))
    assert sum(released) == 13
    balance = ledger.compute_balance()
    assert balance.reserved == 0
    assert 0 <= balance.left < balance.spent / 13
    assert not any(check.failed for check in verify_ledger(ledger.folder))


def test_processes_that_race_for_one_round_release_the_same_bytes(tmp_path):
    ledger = create(tmp_path)
    ledger.reserve(make_terms())
    found = race(ledger.folder, answer, (b"one", b"two", b"three"))
    assert len({payload for payload, _ in found}) == 1
    assert sorted(repeated for _, repeated in found) == [False, True, True]
    assert ledger.find_reservation("run").rounds_left == 2


def test_threads_share_one_ledger(tmp_path):
    ledger = create(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        runs = [f"run-{number}" for number in range(8)]
        list(pool.map(lambda run: ledger.reserve(make_terms(run, 1)), runs))
        list(pool.map(lambda run: release(ledger, 1, run.encode(), run), runs))
    assert ledger.find_head().index == 16
