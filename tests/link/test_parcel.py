"""Parcels: what is read is what was written, and nothing else is read."""

import math
import mmap
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.link.faults import ParcelError
from fedtrain.link.link_pb2 import ParcelHeader
from fedtrain.link.parcel import ALIGNMENT, LARGEST_HEADER, Parcel, pack, unpack
from tests.link.parcels import join, make_parcel, parcels

MIB = 2**20


def split(data):
    """Return a parcel's header, and what lies behind it from its first multiple of 64 on."""
    size = int.from_bytes(data[:8], "little")
    return ParcelHeader.FromString(data[8 : 8 + size]), data[-(-(8 + size) // 64) * 64 :]


def assemble(header, body=b""):
    """Return bytes with any header."""
    head = header if isinstance(header, bytes) else header.SerializeToString(deterministic=True)
    head = len(head).to_bytes(8, "little") + head
    return head + (bytes(-len(head) % 64) + body if body else b"")


def list_facts(parcel):
    """Return what two equal parcels share; NaN is equal to itself."""
    return (
        parcel.message_type,
        repr({name: dict(record) for name, record in parcel.values.items()}),
        parcel.metrics,
        [
            (name, key, array.dtype, array.shape, array.tobytes())
            for name, record in parcel.arrays.items()
            for key, array in record.items()
        ],
        list(parcel.arrays),
        parcel.error,
    )


@given(parcels())
@settings(max_examples=150, deadline=None)
def test_parcel_is_read_as_it_was_written(parcel):
    data = join(parcel)
    found = unpack(data)
    assert list_facts(found) == list_facts(parcel)
    assert join(found) == data


@given(parcels(), st.data())
@settings(max_examples=150, deadline=None)
def test_changed_bytes_are_refused_or_are_another_parcel(parcel, data):
    good = bytearray(join(parcel))
    good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    bad = bytes(good)
    try:
        found = unpack(bad)
    except ParcelError:
        return
    assert join(found) == bad


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused_or_canonical(data):
    for bad in (data, assemble(data)):
        try:
            found = unpack(bad)
        except ParcelError:
            continue
        assert join(found) == bad


def test_every_truncation_and_any_trailing_byte_is_refused():
    data = join(make_parcel())
    unpack(data)
    for size in (*range(600), len(data) - 1):
        with pytest.raises(ParcelError):
            unpack(data[:size])
    with pytest.raises(ParcelError, match="follow its end"):
        unpack(data + b"\0")


def test_arrays_are_views_of_the_buffer_and_aligned_in_it():
    with mmap.mmap(-1, MIB) as memory:
        data = join(make_parcel())
        memory[: len(data)] = data
        weights = unpack(memoryview(memory)[: len(data)]).arrays["arrays"]["weights"]
        assert weights.ctypes.data % ALIGNMENT == 0
        memory[data.index(weights.tobytes())] = 1
        assert weights[0, 0] != 0
        del weights


def test_arrays_of_read_only_bytes_cannot_be_written():
    array = unpack(join(make_parcel())).arrays["arrays"]["weights"]
    assert not array.flags.writeable


def test_packing_and_unpacking_copy_no_array():
    large = np.ones(16 * MIB, dtype=np.uint8)
    parcel = Parcel("train", arrays={"arrays": {"large": large}})
    data = join(parcel)
    tracemalloc.start()
    buffers = pack(parcel)
    found = unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB
    assert np.shares_memory(np.frombuffer(buffers[-1], np.uint8), large)
    assert np.shares_memory(found.arrays["arrays"]["large"], np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("dtype", [">f4", ">i8"])
def test_arrays_of_other_byte_order_or_layout_are_sent_plain(dtype):
    array = np.arange(12, dtype=dtype).reshape(3, 4).T
    found = unpack(join(Parcel("train", arrays={"a": {"x": array}}))).arrays["a"]["x"]
    assert found.dtype.str[0] == "<"
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "parcel",
    [
        Parcel("t", arrays={"a": {"x": np.array([None])}}),
        Parcel("t", arrays={"a": {"x": np.array(["text"])}}),
        Parcel("t", arrays={"a": {"x": np.array([1j])}}),
        Parcel("t", arrays={"a": {"x": np.zeros(2, dtype=[("f", "<f4")])}}),
        Parcel("t", arrays={"a": {"x": np.zeros((1,) * 33)}}),
        Parcel("t", values={"c": {"x": 2**63}}),
        Parcel("t", values={"c": {"x": None}}),
        Parcel("t", values={"c": {"x": {"nested": 1}}}),
        Parcel("t", values={"c": {"x": [1, 2.0]}}),
        Parcel("t", values={"c": {"x": [True]}}),
        Parcel("t", values={"c": {"x": ["text"]}}),
        Parcel("t", values={"c": {"x": "\ud800"}}),
        Parcel("t", values={"c": {"x": "x" * LARGEST_HEADER}}),
        Parcel("t", values={"m": {"x": "text"}}, metrics=frozenset({"m"})),
        Parcel("t", values={"m": {"x": True}}, metrics=frozenset({"m"})),
        Parcel("t", metrics=frozenset({"m"})),
        Parcel("t", values={"a": {}}, arrays={"a": {}}),
        Parcel("t", values={"a": {}}, error=(1, "failed")),
    ],
    ids=lambda parcel: str(parcel)[:60],
)
def test_what_no_parcel_holds_is_not_written(parcel):
    with pytest.raises(ValueError, match=r".+"):
        pack(parcel)


def change(index=0, **fields):
    """Return a change of one array's line in a header."""

    def apply(header):
        for name, value in fields.items():
            if name == "shape":
                header.arrays[index].shape[:] = value
            else:
                setattr(header.arrays[index], name, value)

    return apply


@pytest.mark.parametrize(
    "apply",
    [
        change(dtype="|O"),
        change(dtype="O"),
        change(dtype="<U4"),
        change(dtype=">f4"),
        change(dtype="f4"),
        change(dtype="<f4,<f4"),
        change(shape=[2**62, 2**62]),
        change(shape=[2**63, 2]),
        change(shape=[0, 2**63]),
        change(shape=[1] * 33),
        change(shape=[5]),
        change(offset=0),
        change(offset=2**63),
        change(1, offset=64),
        change(2, offset=0),
        change(record="config"),
        change(record="nowhere"),
        change(1, name="weights"),
        lambda header: header.arrays.pop(),
        lambda header: header.records.pop(3),
        lambda header: header.records[0].values[0].ClearField("value"),
        lambda header: header.records[0].values.append(header.records[0].values[0]),
        lambda header: setattr(header.records[1].values[0].extent, "size", 2**40),
        lambda header: setattr(header.records[1].values[0].extent, "size", 1),
        lambda header: setattr(header.records[1].values[0].extent, "offset", 64),
        lambda header: setattr(header.records[1].values[0], "blob", b"x" * 5000),
        lambda header: setattr(header.records[3], "metrics", True),
        lambda header: setattr(header.records[0], "metrics", True),
        lambda header: header.error.SetInParent(),
        lambda header: header.MergeFromString(b"\x98\x06\x01"),  # a field that is not in the proto
    ],
)
def test_header_that_does_not_fit_is_refused(apply):
    header, body = split(join(make_parcel()))
    unpack(assemble(header, body))
    apply(header)
    with pytest.raises(ParcelError):
        unpack(assemble(header, body))


def test_header_in_another_encoding_is_refused():
    header, _ = split(join(Parcel("train")))
    data = header.SerializeToString()
    assert unpack(assemble(data)).message_type == "train"
    with pytest.raises(ParcelError, match="canonical"):
        unpack(assemble(data + data))  # a field given twice: the last one counts
    with pytest.raises(ParcelError, match="damaged"):
        unpack(assemble(data + b"\x0a\x7f"))


def test_bytes_between_items_are_zero():
    data = bytearray(join(make_parcel()))
    end = data.index(b"\7" * 4097) + 4097
    data[end] = 1
    with pytest.raises(ParcelError, match="not zero"):
        unpack(data)


def test_truth_values_are_zero_or_one():
    parcel = Parcel("train", arrays={"a": {"x": np.array([True, False])}})
    with pytest.raises(ParcelError, match="neither 0 nor 1"):
        unpack(join(parcel)[:-1] + b"\2")


def test_length_of_a_header_is_compared_before_anything_is_taken():
    for size in (2**64 - 1, LARGEST_HEADER + 1, 100):
        with pytest.raises(ParcelError, match="header of"):
            unpack(size.to_bytes(8, "little") + bytes(20))


def test_claimed_lengths_take_no_memory():
    header, body = split(join(make_parcel()))
    header.arrays[0].shape[:] = [2**20, 2**20]
    header.records[1].values[0].extent.size = 2**40
    data = assemble(header, body)
    tracemalloc.start()
    with pytest.raises(ParcelError):
        unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB


def test_order_of_records_is_part_of_a_parcel():
    one = Parcel("t", {"a": {"x": 1, "y": 2}, "b": {}})
    other = replace(one, values={"b": {}, "a": {"y": 2, "x": 1}})
    assert join(one) != join(other)
    assert list(unpack(join(other)).values["a"]) == ["y", "x"]


def test_not_a_number_goes_through():
    found = unpack(join(Parcel("t", {"m": {"loss": math.nan}}, frozenset({"m"}))))
    assert math.isnan(found.values["m"]["loss"])
