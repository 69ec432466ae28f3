"""Reasons are stable names; every bit of a message to a site counts."""

import functools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.secagg import MessageError, RefusalError, decode, encode
from fedtrain.secagg.faults import REFUSALS, VOIDS
from fedtrain.secagg.messages import AdvertisementList, ShareDelivery, SignatureList, SurvivorSet
from tests.secagg.federation import Federation, Round

SOURCE = "\n".join(
    path.read_text(encoding="utf-8")
    for path in (Path(__file__).parents[2] / "fedtrain" / "secagg").glob("*.py")
)


def test_reasons_of_refusals_are_those_of_the_list():
    assert set(re.findall(r"RefusalError\(\s*\"([a-z-]+)\"", SOURCE)) == set(REFUSALS)


def test_reasons_of_void_rounds_are_those_of_the_list():
    assert set(re.findall(r"_stop\(\s*\"([a-z-]+)\"", SOURCE)) == set(VOIDS)


@functools.cache
def prepare(stage):
    """A session of site-001 that is about to get the message of a stage, and that message."""
    federation = Federation(4)
    attempt = Round(federation, federation.make_context()).run_until(stage)
    session, vector = attempt.sessions["site-001"], attempt.vectors["site-001"]
    return {
        "share": (session.share_keys, getattr(attempt, "listed", None), AdvertisementList),
        "mask": (
            lambda delivery: session.mask(vector, delivery),
            getattr(attempt, "deliveries", {}).get("site-001"),
            ShareDelivery,
        ),
        "sign": (session.sign_survivors, getattr(attempt, "survivors", None), SurvivorSet),
        "unmask": (session.unmask, getattr(attempt, "signatures", None), SignatureList),
    }[stage]


@pytest.mark.parametrize("stage", ["share", "mask", "sign", "unmask"])
@given(st.integers(0, 2**20))
@settings(max_examples=60, deadline=None)
def test_message_with_one_bit_flipped_is_refused_by_the_site(stage, place):
    step, message, kind = prepare(stage)
    raw = bytearray(encode(message))
    place %= 8 * len(raw)
    raw[place // 8] ^= 1 << place % 8
    with pytest.raises((RefusalError, MessageError)):
        step(decode(bytes(raw), kind))
