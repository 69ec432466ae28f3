"""Reserve, release, close: what a run may spend, and that it spends it once."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.ledger.budget import UNITS_PER_ONE, Budget
from fedtrain.ledger.faults import BudgetError, LedgerError
from fedtrain.ledger.site_ledger import SiteLedger
from fedtrain.ledger.verify import verify_ledger
from fedtrain.privacy.events import PoissonSampledGaussian, Unprotected
from fedtrain.secagg.roster import Identity
from tests.ledger.books import MODEL, create, fill, make_terms, open_again, release


def refuses(reason):
    return pytest.raises(BudgetError, check=lambda error: error.reason == reason)


def explode():
    raise RuntimeError("computed although refused")


@pytest.fixture
def ledger(tmp_path):
    return create(tmp_path)


def test_reservation_is_of_all_rounds_that_fit(ledger):
    assert ledger.reserve(make_terms(rounds=10)).rounds == 10
    assert ledger.reserve(make_terms("other", 10)).rounds == 3


def test_reservation_takes_from_what_is_left_before_anything_is_released(ledger):
    ledger.reserve(make_terms(rounds=2))
    balance = ledger.compute_balance()
    assert balance.spent == 0
    assert balance.reserved == balance.total - balance.left > 0


def test_reservation_asked_for_again_is_the_same(ledger):
    first = ledger.reserve(make_terms())
    assert ledger.reserve(make_terms()) == first
    assert open_again(ledger).reserve(make_terms()) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 4},
        {"config_digest": "a" * 64},
        {"event": PoissonSampledGaussian(1.5, 0.05, 101)},
    ],
    ids=str,
)
def test_run_that_changed_its_terms_is_refused(ledger, changes):
    ledger.reserve(make_terms())
    with refuses("misfit"):
        ledger.reserve(make_terms(**changes))


def test_run_after_the_budget_is_spent_is_refused(ledger):
    ledger.reserve(make_terms(rounds=13))
    with refuses("spent"):
        ledger.reserve(make_terms("other", 1))


def test_run_that_no_budget_could_bear_is_refused_as_misfit(ledger):
    with refuses("misfit"):
        ledger.reserve(make_terms(event=PoissonSampledGaussian(0.5, 1.0, 100)))


@pytest.mark.parametrize("event", [Unprotected(), PoissonSampledGaussian(0.0, 0.1, 1)], ids=str)
def test_release_without_noise_fits_no_budget(ledger, event):
    with refuses("misfit"):
        ledger.reserve(make_terms(event=event))


def test_run_without_a_unit_fits_no_budget(ledger):
    with refuses("misfit"):
        ledger.reserve(make_terms(unit="none"))


def test_run_that_fits_in_part_is_refused_where_parts_are_not_allowed(ledger):
    with refuses("misfit"):
        ledger.reserve(make_terms(rounds=14), partial=False)
    assert ledger.find_reservation("run") is None


def test_refused_run_leaves_no_entry(ledger):
    head = ledger.find_head()
    with refuses("misfit"):
        ledger.reserve(make_terms(event=Unprotected()))
    assert ledger.find_head() == head


def test_unknown_event_is_a_type_error(ledger):
    with pytest.raises(TypeError, match="no known cost"):
        ledger.reserve(make_terms(event=object()))


def test_release_returns_what_was_computed(ledger):
    ledger.reserve(make_terms())
    released = release(ledger, 1)
    assert (released.payload, released.repeated) == (b"update", False)
    assert released.head == ledger.find_head().digest


def test_array_is_released_as_its_bytes(ledger):
    ledger.reserve(make_terms())
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    released = ledger.release("run", 1, model_digest=MODEL, compute=lambda: array)
    assert released.payload == array.tobytes()


def test_round_asked_for_again_gives_the_same_bytes_and_costs_nothing(ledger):
    ledger.reserve(make_terms())
    first, balance = release(ledger, 1), ledger.compute_balance()
    again = ledger.release("run", 1, model_digest=MODEL, compute=explode)
    assert again.repeated
    assert (again.payload, again.digest, again.head) == (first.payload, first.digest, first.head)
    assert ledger.compute_balance() == balance


def test_round_asked_for_again_with_another_model_is_refused(ledger):
    ledger.reserve(make_terms())
    release(ledger, 1)
    with refuses("replay"):
        ledger.release("run", 1, model_digest="0" * 64, compute=explode)


def test_round_before_the_last_is_refused(ledger):
    ledger.reserve(make_terms())
    release(ledger, 2)
    with refuses("replay"):
        ledger.release("run", 1, model_digest=MODEL, compute=explode)


def test_round_beyond_the_reservation_is_refused_before_it_is_computed(ledger):
    ledger.reserve(make_terms(rounds=2))
    release(ledger, 1)
    release(ledger, 7)
    with refuses("spent"):
        ledger.release("run", 8, model_digest=MODEL, compute=explode)


def test_release_without_a_reservation_is_refused(ledger):
    with refuses("misfit"):
        ledger.release("run", 1, model_digest=MODEL, compute=explode)


def test_release_that_fails_to_compute_costs_no_round(ledger):
    ledger.reserve(make_terms(rounds=1))
    with pytest.raises(RuntimeError):
        ledger.release("run", 1, model_digest=MODEL, compute=explode)
    assert ledger.find_reservation("run").rounds_left == 1


def test_closed_run_gives_back_what_it_never_released(ledger):
    whole = ledger.compute_balance().left
    ledger.reserve(make_terms(rounds=3))
    release(ledger, 1)
    assert ledger.close("run") == 2
    balance = ledger.compute_balance()
    assert balance.reserved == 0
    assert whole - balance.left == balance.spent


def test_closed_run_never_commits_nor_reserves_again(ledger):
    ledger.reserve(make_terms())
    ledger.close("run")
    with refuses("replay"):
        ledger.release("run", 1, model_digest=MODEL, compute=explode)
    with refuses("replay"):
        ledger.reserve(make_terms())


def test_run_closed_while_it_computes_releases_nothing(ledger):
    ledger.reserve(make_terms())
    with refuses("replay"):
        ledger.release("run", 1, model_digest=MODEL, compute=lambda: bytes(ledger.close("run")))
    assert ledger.compute_balance().spent == 0


def test_round_that_was_released_is_sent_again_after_the_run_is_closed(ledger):
    ledger.reserve(make_terms())
    first = release(ledger, 1)
    ledger.close("run")
    assert release(ledger, 1, b"not computed").payload == first.payload


def test_only_the_last_release_of_a_closed_run_is_kept(ledger):
    ledger.reserve(make_terms())
    release(ledger, 1, b"one")
    release(ledger, 2, b"two")
    ledger.close("run")
    assert [path.read_bytes() for path in (ledger.folder / "releases").iterdir()] == [b"two"]


def test_closing_twice_gives_nothing_back(ledger):
    ledger.reserve(make_terms())
    assert ledger.close("run") == 3
    assert ledger.close("run") == 0


def test_only_the_last_releases_are_kept(ledger):
    ledger = open_again(ledger, kept_releases=2)
    ledger.reserve(make_terms())
    for number in (1, 2, 3):
        release(ledger, number, b"%d" % number)
    assert release(ledger, 2).payload == b"2"
    with refuses("replay"):
        release(ledger, 1)


def test_reopened_ledger_stands_where_it_stood(tmp_path):
    ledger = fill(tmp_path)
    again = open_again(ledger)
    assert again.compute_balance() == ledger.compute_balance()
    assert again.find_head() == ledger.find_head()


def test_ledger_opens_with_its_own_identity_only(ledger):
    with pytest.raises(LedgerError, match="use the site's own key"):
        SiteLedger(ledger.folder, Identity.from_seed(2, "site"))


def test_folder_with_a_ledger_is_not_overwritten(ledger, tmp_path):
    with pytest.raises(LedgerError, match="holds a ledger already"):
        create(tmp_path)


def test_only_the_owner_may_read_the_ledger(ledger):
    assert ledger.folder.stat().st_mode & 0o077 == 0


def test_entries_hold_what_a_reader_asks_for(tmp_path):
    lines = (fill(tmp_path).folder / "ledger.jsonl").read_text().splitlines()
    bodies = [json.loads(line)["body"] for line in lines]
    reserved, committed = bodies[1], bodies[3]
    assert reserved["mechanism"] == "poisson_sampled_gaussian"
    assert reserved["parameters"] == {"noise_multiplier": 1.5, "sample_rate": 0.05, "steps": 100}
    assert {"run", "round", "config_digest", "cost", "spent", "left"} <= committed.keys()


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["reserve", "release", "close"])),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS, epsilon=st.floats(0.5, 20))
def test_no_sequence_overspends_and_every_one_verifies(tmp_path_factory, steps, epsilon):
    ledger = create(tmp_path_factory.mktemp("site"), Budget(epsilon, 1e-6))
    for number, (run, act) in enumerate(steps, start=1):
        try:
            if act == "reserve":
                ledger.reserve(make_terms(run, 3))
            elif act == "release":
                release(ledger, number, run=run)
            else:
                ledger.close(run)
        except BudgetError:
            continue
    balance = open_again(ledger).compute_balance()
    assert min(balance.left, balance.spent, balance.reserved) >= 0
    assert balance.total <= epsilon * UNITS_PER_ONE
    assert not any(check.failed for check in verify_ledger(ledger.folder))
