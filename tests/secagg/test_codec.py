"""The wire format: canonical, MessagePack, and safe on any bytes."""

import tracemalloc
from dataclasses import dataclass

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.secagg import MessageError, codec, decode, encode
from fedtrain.secagg.codec import Blob, Items, Message, Text, Whole, declare
from fedtrain.secagg.messages import (
    MAX_SITES,
    Advertisement,
    AdvertisementList,
    AttemptRecord,
    EncryptedShares,
    MaskedVector,
    RevealedShare,
    Roster,
    RosterEntry,
    RoundContext,
    ShareDelivery,
    SharePacket,
    SignatureList,
    SignedRoster,
    SiteRecord,
    SurvivorSet,
    SurvivorSignature,
    Unmasking,
)

SITES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
B32 = st.binary(min_size=32, max_size=32)
B64 = st.binary(min_size=64, max_size=64)
NUMBERS = st.integers(0, 2**32 - 1)


def tuples(strategy):
    return st.lists(strategy, max_size=20).map(tuple)


ROSTERS = st.builds(Roster, SITES, NUMBERS, tuples(st.builds(RosterEntry, SITES, B32)))
CONTEXTS = st.builds(
    RoundContext,
    federation=SITES,
    run=SITES,
    round=NUMBERS,
    attempt=st.integers(0, 65535),
    roster_digest=B32,
    config_digest=B32,
    model_digest=B32,
    cohort=tuples(SITES),
    threshold=st.integers(0, MAX_SITES),
    length=st.integers(0, 2**31 - 1),
    ring_bits=st.integers(0, 32),
    neighbours=st.integers(0, MAX_SITES),
)
ADS = st.builds(Advertisement, SITES, B32, B32, B32, B64)
PACKETS = tuples(st.builds(SharePacket, SITES, st.binary(min_size=80, max_size=80), B32, B32))
SIGNATURES = st.builds(SurvivorSignature, SITES, B64)
REVEALED = tuples(st.builds(RevealedShare, SITES, B32))
MESSAGES = st.one_of(
    ROSTERS,
    st.builds(SignedRoster, ROSTERS, B64),
    CONTEXTS,
    ADS,
    st.builds(AdvertisementList, tuples(ADS)),
    st.builds(EncryptedShares, SITES, B32, B32, PACKETS),
    st.builds(ShareDelivery, tuples(SITES), PACKETS),
    st.builds(MaskedVector, SITES, B32, st.binary(max_size=70_000), B64),
    st.builds(SurvivorSet, tuples(SITES)),
    SIGNATURES,
    st.builds(SignatureList, tuples(SIGNATURES)),
    st.builds(Unmasking, SITES, B32, REVEALED, REVEALED),
    st.builds(AttemptRecord, CONTEXTS, B32 | st.just(b""), st.binary(max_size=300)),
)
KINDS = [
    *(SignedRoster, RoundContext, Advertisement, AdvertisementList, EncryptedShares),
    *(ShareDelivery, MaskedVector, SurvivorSet, SurvivorSignature, SignatureList, Unmasking),
    *(Roster, SiteRecord, AttemptRecord),
]
SET = SurvivorSet(("a", "b"))


@given(MESSAGES)
@settings(max_examples=100, deadline=None)
def test_decoding_gives_back_what_was_encoded(message):
    assert decode(encode(message), type(message)) == message


@given(MESSAGES)
@settings(max_examples=60, deadline=None)
def test_encoding_is_msgpack_of_version_tag_and_fields(message):
    flat = msgpack.unpackb(encode(message), use_list=False)
    assert flat[:2] == (codec.VERSION, message.TAG)
    assert msgpack.packb(flat) == encode(message)


@given(st.sampled_from(KINDS), st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_canonically_or_refused(kind, data):
    try:
        message = decode(data, kind)
    except MessageError:
        return
    assert encode(message) == data


@given(MESSAGES, st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_messages_are_read_canonically_or_refused(message, data):
    raw = bytearray(encode(message))
    at = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert"])):
        case "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del raw[at:]
        case _:
            raw.insert(at, data.draw(st.integers(0, 255)))
    try:
        decoded = decode(bytes(raw), type(message))
    except MessageError:
        return
    assert encode(decoded) == bytes(raw)
    assert decoded != message


@given(MESSAGES, st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_truncated_messages_are_refused(message, at):
    raw = encode(message)
    with pytest.raises(MessageError):
        decode(raw[: at % len(raw)], type(message))


@pytest.mark.slow
@given(st.sampled_from(KINDS), st.binary(max_size=3000))
@settings(max_examples=20_000, deadline=None)
def test_any_bytes_are_read_canonically_or_refused_at_length(kind, data):
    test_any_bytes_are_read_canonically_or_refused.hypothesis.inner_test(kind, data)


@pytest.mark.parametrize(
    "claim",
    [
        b"\xdd\xff\xff\xff\xff",  # array of 2^32 - 1
        b"\xdc\xff\xff",  # array of 65535, above the limit of sites
        b"\xdd\x00\x00\x27\x10",  # array of 10000, not in its shortest form
        b"\xdc\x27\x10",  # array of 10000, with nothing behind it
        b"\xdc\x27\x10" + b"\xdc\x27\x10" * 1000,  # arrays in arrays
    ],
)
def test_claimed_lengths_take_no_memory(claim):
    raw = b"\x93\x01\x09" + claim
    tracemalloc.start()
    with pytest.raises(MessageError):
        decode(raw, SurvivorSet)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "truncated"),
        (b"\x93\x02\x09\x90", "version 2"),
        (b"\x93\x01\x08\x90", "tag 8"),
        (b"\x94\x01\x09\x90\x90", "tag 9 with 4 items"),
        (b"\x93\x01\x09\x90\x00", "1 bytes follow"),
        (b"\x93\x01\x09\x80", "no items"),
        (b"\x93\x01\x09\x91\xa0", "0 bytes of text"),
        (b"\x93\x01\x09\x91\xd9\x81" + b"x" * 129, "129 bytes of text"),
        (b"\x93\x01\x09\x91\xa1\xff", "not UTF-8"),
        (b"\x93\x01\x09\x91\xd9\x01x", "shortest form"),
        (b"\x93\x01\x09\x91\xc4\x01x", "no text"),
        (b"\xdc\x00\x03\x01\x09\x90", "shortest form"),
        (b"\xde\x00\x03\x01\x09\x90", "no items"),
    ],
)
def test_bytes_that_are_not_canonical_are_refused(raw, match):
    with pytest.raises(MessageError, match=match):
        decode(raw, SurvivorSet)


def test_signature_of_wrong_length_or_nested_field_count_is_refused():
    raw = encode(SignatureList((SurvivorSignature("a", bytes(64)),)))
    with pytest.raises(MessageError, match="do not fit a field of 64"):
        decode(raw.replace(b"\xc4\x40", b"\xc4\x3f"), SignatureList)
    with pytest.raises(MessageError, match="3 fields where 2 are due"):
        decode(raw.replace(b"\x91\x92", b"\x91\x93"), SignatureList)


@dataclass(frozen=True)
class Small(Message):
    """Every kind with a small limit."""

    TAG = 99
    number: int = declare(Whole(300))
    text: str = declare(Text(2))
    blob: bytes = declare(Blob(2, exact=False))
    items: tuple[int, ...] = declare(Items(Whole(1), 2))


@pytest.mark.parametrize(
    "values",
    [
        (301, "a", b"", ()),
        (-1, "a", b"", ()),
        (0, "", b"", ()),
        (0, "abc", b"", ()),
        (0, "a", b"abc", ()),
        (0, "a", b"", (0, 0, 0)),
        (0, "a", b"", (2,)),
    ],
)
def test_values_beyond_their_limits_are_not_encoded(values):
    with pytest.raises(ValueError, match=r"not between|do not fit|more than"):
        encode(Small(*values))


def test_numbers_and_items_beyond_their_limits_are_not_decoded():
    raw = encode(Small(300, "a", b"", (0, 0)))
    with pytest.raises(MessageError, match="301 is above 300"):
        decode(raw.replace(b"\xcd\x01\x2c", b"\xcd\x01\x2d"), Small)
    with pytest.raises(MessageError, match="3 items, at most 2"):
        decode(raw[:-3] + b"\x93\x00\x00\x00", Small)


def test_header_of_a_number_beyond_32_bits_does_not_exist():
    with pytest.raises(ValueError, match="does not fit"):
        codec.write_header("whole", 2**32)


def test_large_fields_are_views_of_the_message():
    raw = encode(MaskedVector("a", bytes(32), bytes(10**6), bytes(64)))
    tracemalloc.start()
    words = decode(raw, MaskedVector).words
    assert tracemalloc.get_traced_memory()[1] < 20_000
    tracemalloc.stop()
    assert words.obj is raw


def test_no_two_messages_share_a_tag():
    tags = [kind.TAG for kind in KINDS]
    assert sorted(tags) == list(range(1, len(KINDS) + 1))
