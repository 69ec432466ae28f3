"""Sites of a simulation that attack."""

import numpy as np
import pytest

from fedtrain.attackers import choose_attackers, corrupt_records, corrupt_update
from fedtrain.config import AttackersSection, build_config
from fedtrain.data.shards import Split
from fedtrain.errors import ConfigError

NAMES = [f"site-{index:02d}" for index in range(10)]
START = np.ones(3, np.float32)
HONEST = np.array([2.0, 1.0, 0.0], np.float32)


def test_share_is_drawn_from_the_seed():
    section = AttackersSection(share=0.3, kind="label_flip")
    chosen = [choose_attackers(section, NAMES, seed=seed) for seed in range(5)]
    assert {len(one) for one in chosen} == {3}
    assert len(set(chosen)) > 1
    assert chosen[0] == choose_attackers(section, NAMES, seed=0)


def test_named_sites_attack():
    section = AttackersSection(sites=("site-03",), kind="label_flip")
    assert choose_attackers(section, NAMES, seed=0) == {"site-03"}


@pytest.mark.parametrize(
    ("changes", "message"), [({"sites": ("nix",)}, "'nix'"), ({"share": 0.01}, "is none")]
)
def test_attackers_that_are_none_are_refused(changes, message):
    section = AttackersSection(kind="label_flip", **changes)
    with pytest.raises(ConfigError, match=message):
        choose_attackers(section, NAMES, seed=0)


@pytest.mark.parametrize(
    ("kind", "factor", "expected"),
    [("sign_flip", 1.0, [0, 1, 2]), ("scaling", 3.0, [4, 1, -2]), ("label_flip", 1.0, [2, 1, 0])],
)
def test_update_is_corrupted(kind, factor, expected):
    section = AttackersSection(share=0.5, kind=kind, factor=factor)
    assert corrupt_update(section, START, HONEST).tolist() == expected


def test_labels_are_flipped_and_nothing_else():
    split = Split(np.zeros((3, 2), np.float32), np.array([0, 1, 9]))
    flipped = corrupt_records(AttackersSection(share=0.5, kind="label_flip"), split, classes=10)
    assert flipped.labels.tolist() == [9, 8, 0]
    assert flipped.features is split.features
    section = AttackersSection(share=0.5, kind="scaling", factor=2.0)
    assert corrupt_records(section, split, classes=10) is split


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"kind": "scaling"}, "give one of the two"),
        ({"kind": "scaling", "share": 0.1, "sites": ["a"]}, "give one of the two"),
        ({"kind": "label_flip", "share": 0.1, "factor": 2.0}, "has no effect"),
        ({"share": 0.1}, "attackers.kind"),
    ],
)
def test_contradictions_are_refused(tree, message):
    with pytest.raises(ConfigError, match=message):
        build_config({"attackers": tree})
