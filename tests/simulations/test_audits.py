"""Audits that run federations: attacks that succeed without protection and fail with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedtrain.audit.findings import save_finding
from fedtrain.audit.methods import AuditContext, load_methods
from fedtrain.audit.one_shot import Fit, compute_epsilon_between, fit_cosines
from fedtrain.config import load_config, parse_config
from fedtrain.plan import compute_planned_site_cost
from fedtrain.resolution import resolve
from simulations.canary_sites import enlarge, open_federation, watch_many
from simulations.membership import attack_each
from simulations.opening import open_config
from simulations.progress import Silence
from simulations.shadows import make_shadow_config, run_shadows
from simulations.simulate import simulate, start

BY_HEART = """
[data]
source = "tests.simulations.mislabelled:load"
preparation = "none"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
validation_fraction = 0.0
[partition]
sites = 3
[model]
name = "mlp"
hidden = [64]
[training]
learning_rate = 1.0
sampling = "poisson"
sample_rate = 0.5
local_steps = 5
expected_batch_size = 20
[federation]
rounds = 20
[privacy]
unit = "record"
target_epsilon = 1.0
max_grad_norm = 0.5
[secure_aggregation]
max_update_norm = 1000.0
"""
SITE = """
[partition]
sites = 12
[model]
name = "mlp"
hidden = [16]
[federation]
rounds = 3
[privacy]
unit = "site"
[privacy.site]
noise_multiplier = 1.0
target_delta = 1e-5
max_update_norm = 0.5
"""


def make_context(path, config, *, seed=0):
    return AuditContext(path, config, seed, True, path)


@pytest.fixture(scope="module")
def by_heart():
    """Return the scenario, and what LiRA gets of its shadows without privacy and with it."""
    config = resolve(parse_config(BY_HEART))
    context = make_context(Path(), config)
    found = [
        attack_each(run_shadows(config, 5, seed=1, protected=protected), context)["LiRA"]
        for protected in (False, True)
    ]
    return config, *found


def test_what_is_learnt_by_heart_is_found_and_differential_privacy_hides_it(by_heart):
    _, bare, protected = by_heart
    assert bare.auc.low > 0.8
    assert bare.found[0.01].low > 0.1
    assert protected.auc.value < 0.56
    assert protected.found[0.01].low <= 0.02


def test_shadows_are_dealt_anew_and_share_no_seed(by_heart):
    config = by_heart[0]
    seeds = {make_shadow_config(config, seed).run.seed for seed in (5, 6)}
    assert seeds == {5, 6}
    bare = make_shadow_config(config, 5, protected=False)
    assert bare.privacy.unit == "none"
    assert bare.training == make_shadow_config(config, 5).training


def test_half_of_the_records_are_in_each_shadow():
    config = resolve(parse_config(BY_HEART, ["federation.rounds=1"]))
    shadows = run_shadows(config, 4, seed=1)
    assert shadows.joined.shape == (4, 240)
    assert 0.4 < shadows.joined.mean() < 0.6
    assert np.unique(shadows.joined, axis=0).shape[0] == 4


@pytest.fixture(scope="module")
def sites():
    config = resolve(parse_config(SITE))
    return config, open_federation(config)


def estimate(federation, **options):
    cosines = watch_many(federation, 60, seed=1, **options).final
    null = Fit(0.0, len(federation.start) ** -0.5)
    return compute_epsilon_between(fit_cosines(cosines), null, delta=1e-5)


def test_canary_sites_are_seen_without_noise_and_as_much_as_claimed_with_it(sites):
    config, federation = sites
    claimed = compute_planned_site_cost(config).epsilon
    noised = estimate(federation)
    assert 0.6 * claimed < noised < 1.4 * claimed
    assert estimate(federation, noised=False) > 2 * claimed


def test_planted_quarter_of_the_noise_is_seen(sites):
    config, federation = sites
    section = config.privacy.site.model_copy(update={"noise_multiplier": 0.25})
    privacy = config.privacy.model_copy(update={"site": section})
    planted = estimate(federation, running=config.model_copy(update={"privacy": privacy}))
    assert planted > 2 * compute_planned_site_cost(config).epsilon


def test_enlarged_cohort_counts_on_just_the_survivors(sites):
    assert enlarge(sites[0], 70).partition.sites == 122  # 82 survive at least, 12 are corrupt


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "run"
    overrides = ["partition.sites=4", "federation.rounds=2", "model.hidden=[16]"]
    text = Path(__file__).parents[2].joinpath("simulations", "digits.toml").read_text()
    simulate(start(open_config(resolve(parse_config(text, overrides))), path), Silence())
    (path / "audit").mkdir()
    return path


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("inversion", marks=pytest.mark.slow),
        "first-layer",
        "label-leakage",
        "single-step",
        pytest.param("canary-sites", marks=pytest.mark.slow),
    ],
)
def test_method_writes_a_finding_and_its_pictures(digits_run, name):
    config = load_config(digits_run / "config.toml")
    context = AuditContext(digits_run, config, 0, True, digits_run / "audit")
    findings = load_methods()[name].run(context)
    assert [one.verdict for one in findings if one.verdict == "violated"] == []
    for finding in findings:
        save_finding(digits_run, finding)
        assert all((digits_run / "audit" / one).stat().st_size for one in finding.pictures)


def find_of_a_sample(path, method, **sample):
    context = replace(
        AuditContext(path, load_config(path / "config.toml"), 0, True, path / "audit"), **sample
    )
    (finding,) = load_methods()[method].run(context)
    return finding


def test_label_leakage_says_on_how_many_records_of_a_site(digits_run):
    finding = find_of_a_sample(digits_run, "label-leakage", label_records=50)
    assert finding.figures["records_of_a_site_at_most"] == 50
    assert "at most 50 of its records" in finding.threat_model
    assert "a bare step on at most 50 records" in finding.sentence


@pytest.mark.slow
def test_inversion_attacks_as_many_records_as_asked_and_every_one_in_the_sum(digits_run):
    finding = find_of_a_sample(digits_run, "inversion", inverted_records=4)
    assert finding.sample_size == 4
    assert finding.figures["sum_records"] == 4 * 4  # sites, records of each
    assert finding.figures["trials"] == 1


def bound_one_step(path, *, plant=None, seed=0):
    context = AuditContext(
        path, load_config(path / "config.toml"), seed, True, path / "audit", plant=plant
    )
    (finding,) = load_methods()["single-step"].run(context)
    return finding.verdict


@pytest.mark.parametrize("plant", ["noise/2", "noise/4"])
def test_single_step_finds_planted_noise_through_the_real_step(digits_run, plant):
    assert bound_one_step(digits_run, plant=plant) == "violated"


@pytest.mark.slow
def test_single_step_accuses_an_honest_run_no_more_often_than_it_may(digits_run):
    verdicts = [bound_one_step(digits_run, seed=seed) for seed in range(50)]
    assert verdicts.count("violated") <= 7  # at 5 %, eight or more once in 300 audits of 50


@pytest.mark.slow
def test_membership_of_digits_tells_what_privacy_hides(digits_run):
    config = load_config(digits_run / "config.toml")
    context = AuditContext(digits_run, config, 0, True, digits_run / "audit")
    (finding,) = load_methods()["membership"].run(context)
    assert finding.verdict == "holds"
    assert finding.figures["lira_auc"] < 0.6
