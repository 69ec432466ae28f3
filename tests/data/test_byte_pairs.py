"""Byte-pair tokens: encoding, and a vocabulary from counts alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.data.byte_pairs import UNKNOWN, BytePairs, choose_pairs, learn_vocabulary
from fedtrain.errors import ConfigError

ALPHABET = (*" abcden\n", UNKNOWN)


@given(st.text(alphabet=" abcden\n", max_size=60))
def test_text_of_known_characters_comes_back(text):
    pairs = BytePairs((*ALPHABET[:-1], "an", " b", "ban", UNKNOWN))
    assert pairs.decode(pairs.encode(text)) == text


def test_pair_that_was_joined_first_is_joined_first():
    pairs = BytePairs((*ALPHABET[:-1], "ab", "bc", UNKNOWN))
    assert [pairs.tokens[number] for number in pairs.encode("abc")] == ["ab", "c"]


def test_no_token_reaches_over_a_blank():
    pairs = BytePairs((*ALPHABET[:-1], "a\n", "a b", UNKNOWN))
    assert len(pairs.encode("a\na b")) == 5


def test_unknown_character_is_the_last_token():
    assert BytePairs(ALPHABET).encode("aéb").tolist() == [1, 8, 2]


def test_counts_are_of_neighbours_within_a_piece():
    counts = BytePairs(ALPHABET).count_pairs("ab ab\nba")
    assert counts[1, 2] == 2
    assert counts[2, 1] == 1
    assert counts.sum() == 4  # and one for the space before the second word


def test_vocabulary_of_sites_is_that_of_their_texts_together():
    texts = {"one": "banana band ", "two": "ban can dance\n", "three": "a dab a cab"}
    apart = learn_vocabulary(texts, ALPHABET, size=16, min_count=2)
    joint = learn_vocabulary({"all": "\n".join(texts.values())}, ALPHABET, size=16, min_count=2)
    assert apart == joint
    assert apart[-1] == UNKNOWN
    assert "an" in apart


def test_rare_pair_is_in_no_token():
    texts = {"one": "abab abab", "two": "dece"}
    tokens = learn_vocabulary(texts, ALPHABET, size=30, min_count=2)
    assert "ab" in tokens
    assert not [token for token in tokens[len(ALPHABET) - 1 : -1] if set(token) & set("dec")]


def test_pairs_of_one_step_share_no_token():
    total = np.zeros((4, 4), np.int64)
    total[0, 1], total[1, 2], total[2, 2] = 9, 8, 3
    assert choose_pairs(total, ("a", "b", "c", "?"), wanted=3, min_count=2) == ("ab", "cc")


@pytest.mark.parametrize("tokens", [("a",), ("a", "a"), ("a", "")])
def test_vocabulary_that_tells_nothing_apart_is_refused(tokens):
    with pytest.raises(ConfigError, match=r"data\.vocabulary"):
        BytePairs(tokens)
