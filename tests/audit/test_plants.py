"""A plant breaks what runs and leaves the claim; the command's help names them all."""

import pytest

from fedtrain import cli
from fedtrain.audit.methods import load_methods
from fedtrain.audit.plants import NOTHING, PLANTS, find_plant, make_subject
from fedtrain.errors import ConfigError
from tests.audit.subjects import make_config

CONFIG = make_config(noise=1.0)


@pytest.mark.parametrize("plant", PLANTS.values(), ids=list(PLANTS))
def test_plant_leaves_the_claim_and_is_found_by_methods_that_exist(plant):
    subject = make_subject(CONFIG, seed=0, plant=plant)
    assert subject.claim == CONFIG
    assert plant.found_by
    assert set(plant.found_by) <= set(load_methods())


def test_nothing_planted_is_the_run_as_it_is():
    subject = make_subject(CONFIG, seed=0)
    assert subject.running == CONFIG
    assert find_plant(None) is NOTHING


def test_absolute_noise_stays_where_the_clip_is_planted_away():
    privacy = make_subject(CONFIG, seed=0, plant=PLANTS["no-clip"]).running.privacy
    assert privacy.max_grad_norm == pytest.approx(0.3e6)
    assert privacy.max_grad_norm * privacy.noise_multiplier == pytest.approx(0.3)


def test_reused_noise_is_the_first_rounds():
    honest = make_subject(CONFIG, seed=0)
    broken = make_subject(CONFIG, seed=0, plant=PLANTS["reused-noise"])
    first, second = (honest.make_noise(n).draw_bytes(8).tolist() for n in (1, 2))
    assert first != second
    assert broken.make_noise(2).draw_bytes(8).tolist() == first


@pytest.mark.parametrize(("plant", "cure"), [("noise/2", "no noise"), ("no-mask", "masks nothing")])
def test_plant_without_anything_to_break_is_refused(plant, cure):
    privacy = CONFIG.privacy.model_copy(update={"unit": "none", "noise_multiplier": None})
    section = CONFIG.secure_aggregation.model_copy(update={"mode": "off"})
    config = CONFIG.model_copy(update={"privacy": privacy, "secure_aggregation": section})
    with pytest.raises(ConfigError, match=cure):
        make_subject(config, seed=0, plant=PLANTS[plant])


def test_unknown_plant_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="choose noise/2, noise/4"):
        find_plant("noise/3")


def test_help_names_every_plant(capsys):
    assert cli.main(["audit", "--help"]) == 0
    text = "".join(capsys.readouterr().out.split())
    assert all(name in text for name in PLANTS)
