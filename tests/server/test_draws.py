import pytest

from fedtrain.config import FederationSection
from fedtrain.errors import ConfigError
from server.cohort import draw_cohort
from server.draws import Draws

SAMPLED = FederationSection(site_sample_rate=0.5, min_survivors=1)


def draw(draws, round_=1):
    return draws.make_generator("cohort", round_).draw_bytes(16).tobytes()


def test_draws_of_one_secret_repeat_by_purpose_and_round():
    first, again = Draws.from_secret(bytes(32)), Draws.from_secret(bytes(32))
    assert draw(first) == draw(again)
    other = first.make_generator("top up", 1).draw_bytes(16).tobytes()
    assert len({draw(first), draw(first, 2), other}) == 3


def test_draws_of_the_system_never_repeat():
    draws = Draws.from_system()
    assert draw(draws) != draw(draws)


def test_draws_of_a_secret_are_not_a_simulation_and_do_not_show_it():
    secret = bytes(range(32))
    draws = Draws.from_secret(secret)
    assert not draws.simulated
    assert str(int.from_bytes(secret, "big")) not in repr(draws)
    with pytest.raises(ConfigError, match="32 bytes, not 16"):
        Draws.from_secret(secret[:16])


def test_interrupted_round_of_a_kept_secret_has_the_same_cohort():
    members = list(range(100))
    kept = [
        draw_cohort(members, SAMPLED, seed=0, round=3, draws=Draws.from_secret(b"k" * 32))
        for _ in range(2)
    ]
    fresh = [
        draw_cohort(members, SAMPLED, seed=0, round=3, draws=Draws.from_system()) for _ in range(2)
    ]
    assert kept[0] == kept[1]
    assert fresh[0] != fresh[1]
