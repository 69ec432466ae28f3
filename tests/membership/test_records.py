"""Records of requests, memberships and kits: one encoding each, safe on any bytes."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.membership.records import (
    JoinClaim,
    JoinRequest,
    Kit,
    MemberEntry,
    Membership,
    SignedMembership,
)
from fedtrain.secagg import MessageError, codec, decode, encode, messages
from fedtrain.secagg.messages import Roster, RosterEntry, SignedRoster

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
B32 = st.binary(min_size=32, max_size=32)
B64 = st.binary(min_size=64, max_size=64)
NUMBERS = st.integers(0, 2**32 - 1)


def tuples(strategy, most=8):
    return st.lists(strategy, max_size=most).map(tuple)


ROSTERS = st.builds(Roster, NAMES, NUMBERS, tuples(st.builds(RosterEntry, NAMES, B32)))
CLAIMS = st.builds(
    JoinClaim,
    name=NAMES,
    role=NAMES.filter(lambda text: len(text.encode()) <= 16),
    address=tuples(NAMES, 1),
    public_key=B32,
    tls_public_key=st.binary(min_size=91, max_size=91),
)
MEMBERSHIPS = st.builds(
    Membership,
    federation=NAMES,
    version=NUMBERS,
    issued=NUMBERS,
    entries=tuples(st.builds(MemberEntry, NAMES, st.sampled_from(["site", "admin"]), B32, B32)),
    ca_certificate=st.binary(max_size=500),
    coordinator=NAMES,
    roster=st.builds(SignedRoster, ROSTERS, B64),
)
SIGNED = st.builds(SignedMembership, MEMBERSHIPS, B64)
MESSAGES = st.one_of(
    CLAIMS,
    st.builds(JoinRequest, CLAIMS, B64, st.binary(max_size=72)),
    MEMBERSHIPS,
    SIGNED,
    st.builds(Kit, B32, SIGNED, st.binary(max_size=500)),
)
KINDS = (JoinClaim, JoinRequest, Membership, SignedMembership, Kit)


@given(MESSAGES)
@settings(max_examples=60, deadline=None)
def test_decoding_gives_back_what_was_encoded(message):
    assert decode(encode(message), type(message)) == message


@given(MESSAGES)
@settings(max_examples=40, deadline=None)
def test_encoding_is_msgpack_of_version_tag_and_fields(message):
    flat = msgpack.unpackb(encode(message), use_list=False)
    assert flat[:2] == (codec.VERSION, message.TAG)
    assert msgpack.packb(flat) == encode(message)


@given(st.sampled_from(KINDS), st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_read_canonically_or_refused(kind, data):
    try:
        message = decode(data, kind)
    except MessageError:
        return
    assert encode(message) == data


@given(MESSAGES, st.data())
@settings(max_examples=100, deadline=None)
def test_damaged_records_are_read_canonically_or_refused(message, data):
    raw = bytearray(encode(message))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode(bytes(raw), type(message))
    except MessageError:
        return
    assert encode(decoded) == bytes(raw)
    assert decoded != message


@given(MESSAGES, st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_truncated_records_are_refused(message, at):
    raw = encode(message)
    with pytest.raises(MessageError):
        decode(raw[: at % len(raw)], type(message))


def test_no_record_shares_a_tag_with_another_or_with_a_message_of_secure_aggregation():
    others = [kind.TAG for kind in vars(messages).values() if hasattr(kind, "TAG")]
    tags = [kind.TAG for kind in KINDS]
    assert len(set(tags)) == len(tags)
    assert not set(tags) & set(others)
