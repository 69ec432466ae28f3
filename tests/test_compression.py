"""Which coordinates are sent, which weights are pruned, and what a config may ask for."""

import numpy as np
import pytest

from fedtrain.compression import compute_prune_share, draw_kept, prune
from fedtrain.config import build_config, parse_config
from fedtrain.errors import ConfigError
from fedtrain.params import Layout
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.resolution import resolve
from fedtrain.training_vector import TrainingVector

KEEP = "[compression]\nkeep_share = 0.25\n"
BITS = "[compression]\nupdate_bits = 8\nlargest_coordinate = 0.5\n"
PRUNE = "[compression]\nprune_share = 0.5\n"
LAYOUT = Layout(("weight", "bias"), ((2, 3), (2,)))


def read(text):
    return resolve(parse_config(text))


def draw(seed=0):
    return SecureGenerator.from_seed(seed, "test")


def send(text, update, *, round=1, sites=3):
    """Return the average that a coordinator decodes of as many sites with one update."""
    layout = TrainingVector(read(text), size=len(update), cohort=sites, round=round)
    update = np.array(update, np.float32)
    words = [
        layout.encode(update, weight=1, train_loss=0.0, rounding=draw(i), noise=draw())
        for i in range(sites)
    ]
    total = np.sum(words, axis=0, dtype=np.uint32)
    return layout.decode(total, survivors=sites, noise=draw()).average


def test_kept_coordinates_are_the_share_asked_for():
    assert len(draw_kept(read(KEEP), size=1001, round=1)) == 251


def test_kept_coordinates_are_the_same_at_all_sites_of_a_round():
    assert (
        draw_kept(read(KEEP), size=99, round=4) == draw_kept(read(KEEP), size=99, round=4)
    ).all()


def test_kept_coordinates_change_with_the_round():
    assert set(draw_kept(read(KEEP), size=99, round=1)) != set(
        draw_kept(read(KEEP), size=99, round=2)
    )


def test_kept_coordinates_are_uniform():
    config, counts = read(KEEP), np.zeros(40)
    for round_ in range(1, 401):
        counts[draw_kept(config, size=40, round=round_)] += 1
    assert np.abs(counts - 100).max() < 6 * np.sqrt(400 * 0.25 * 0.75)


def test_what_is_not_kept_averages_to_zero():
    average = send(KEEP, np.ones(8), round=3)
    kept = draw_kept(read(KEEP), size=8, round=3)
    assert np.flatnonzero(average).tolist() == kept.tolist()


def test_the_vector_is_as_short_as_the_share_and_the_bits_make_it():
    text = BITS + "keep_share = 0.25\n"
    whole = TrainingVector(read(""), size=10_000, cohort=10).encoding.length
    short = TrainingVector(read(text), size=10_000, cohort=10).encoding.length
    assert (whole - 10_000, short) == (2, 1252)  # beside the update: weight, loss


def test_a_coordinate_beyond_the_bound_is_cut_off():
    np.testing.assert_allclose(send(BITS, [0.9, -2.0]), [0.5, -0.5], rtol=1e-6)


def test_few_bits_move_a_coordinate_by_less_than_a_level():
    update = np.linspace(-0.5, 0.5, 101)
    assert np.abs(send(BITS, update) - update).max() < 0.5 / 127


def test_pruning_takes_the_smallest_weights_and_no_bias():
    vector = np.array([3, -0.1, 0.2, -2, 0.3, 1, 0.01, 0.0], np.float32)
    pruned = prune(LAYOUT, vector, 0.5)
    assert pruned.tolist() == np.array([3, 0, 0, -2, 0, 1, 0.01, 0], np.float32).tolist()


def test_pruned_share_grows_to_what_is_asked_for_and_stays():
    config = read(PRUNE + "prune_rounds = 4\n")
    shares = [compute_prune_share(config, round_) for round_ in range(6)]
    assert shares == sorted(shares)
    assert (shares[0], *shares[4:]) == (0, 0.5, 0.5)


def test_nothing_is_pruned_without_the_section():
    assert compute_prune_share(read(""), 9) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[compression]\n", "are all missing"),
        ("[compression]\nupdate_bits = 8\n", "needs largest_coordinate"),
        (KEEP + "largest_coordinate = 0.1\n", "without update_bits"),
        (KEEP + "prune_rounds = 2\n", "without prune_share"),
        (BITS + '[federation]\nweighting = "examples"\n', "set federation.weighting = 'equal'"),
        (BITS + '[secure_aggregation]\nmode = "off"\n', "set mode = 'protocol'"),
        (KEEP + '[privacy]\nunit = "site"\n[privacy.site]\nnoise_multiplier = 1.0\n', "'site'"),
        (
            KEEP + '[federation]\nstrategy = "SCAFFOLD"\n[training]\nlocal_steps = 2\n',
            "whole updates",
        ),
        (PRUNE + '[federation]\nselect = "best"\n', "set federation.select = 'last'"),
        (PRUNE + "prune_rounds = 11\n", "above federation.rounds = 10"),
        (PRUNE + '[personalisation]\nlocal_layers = ["a*"]\n', "local_layers"),
    ],
)
def test_contradictions_are_refused_with_their_cure(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(text)


def test_a_config_without_the_section_has_none_of_its_keys():
    assert build_config({}).compression is None
