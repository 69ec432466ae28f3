import numpy as np
import pytest

from fedtrain.config import FederationSection
from server.cohort import draw_cohort

MEMBERS = list(range(50))


def test_all_members_by_default():
    assert draw_cohort(MEMBERS, FederationSection(), seed=0, round=1) == MEMBERS


def test_fixed_size_cohort_is_ordered_distinct_and_changes_by_round():
    section = FederationSection(sites_per_round=10)
    cohorts = [tuple(draw_cohort(MEMBERS, section, seed=0, round=r)) for r in range(20)]
    assert all(len(set(c)) == 10 and list(c) == sorted(c) for c in cohorts)
    assert len(set(cohorts)) == 20


def test_cohort_is_reproducible_and_depends_on_the_seed():
    section = FederationSection(sites_per_round=10)
    first = draw_cohort(MEMBERS, section, seed=1, round=3)
    assert first == draw_cohort(MEMBERS, section, seed=1, round=3)
    assert first != draw_cohort(MEMBERS, section, seed=2, round=3)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_poisson_cohorts_have_binomial_sizes(rate):
    section = FederationSection(site_sample_rate=rate)
    sizes = [len(draw_cohort(MEMBERS, section, seed=0, round=r)) for r in range(2000)]
    assert np.mean(sizes) == pytest.approx(50 * rate, abs=0.4)
    assert np.var(sizes) == pytest.approx(50 * rate * (1 - rate), rel=0.15)


def test_poisson_cohort_may_be_empty():
    section = FederationSection(site_sample_rate=0.001)
    assert draw_cohort(MEMBERS, section, seed=0, round=1) == []
