from clients.backoff import Backoff


def test_waits_double_up_to_the_longest():
    backoff = Backoff(first=1, longest=30)
    for ceiling in (1, 2, 4, 8, 16, 30, 30):
        assert ceiling / 2 <= backoff.next() <= ceiling


def test_waits_of_two_sites_differ():
    assert Backoff().next() != Backoff().next()


def test_success_begins_anew():
    backoff = Backoff(first=1)
    for _ in range(1000):
        assert backoff.next() <= 30
    backoff.reset()
    assert backoff.next() <= 1
