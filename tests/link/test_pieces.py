import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.link.link_pb2 import Chunk, UploadChunk, UploadHeader
from fedtrain.link.pieces import (
    Piece,
    read_chunk,
    read_upload_chunk,
    write_chunk,
    write_upload_chunk,
)

OFFSETS = st.integers(0, 2**64 - 1) | st.integers(0, 300)
DATA = st.binary(max_size=300)
HEADERS = st.none() | st.builds(
    UploadHeader, session=st.binary(max_size=16), task=DATA, size=OFFSETS, digest=DATA
)


@given(offset=OFFSETS, data=DATA)
def test_chunk_is_written_as_protobuf_does(offset, data):
    raw = write_chunk(Piece(offset, data))
    assert raw == Chunk(offset=offset, data=data).SerializeToString()
    found = read_chunk(raw)
    assert (found.offset, bytes(found.data), found.header) == (offset, data, None)


@given(offset=OFFSETS, data=DATA, header=HEADERS)
def test_upload_chunk_is_what_protobuf_writes(offset, data, header):
    raw = write_upload_chunk(Piece(offset, data, header))
    assert raw == UploadChunk(header=header, offset=offset, data=data).SerializeToString()
    found = read_upload_chunk(raw)
    assert (found.offset, bytes(found.data), found.header) == (offset, data, header)


@given(raw=st.binary(max_size=60))
def test_whatever_arrives_is_read_as_protobuf_reads_it(raw):
    try:
        expected = Chunk.FromString(raw)
    except DecodeError:
        with pytest.raises(DecodeError):
            read_chunk(raw)
        return
    found = read_chunk(raw)
    assert (found.offset, bytes(found.data)) == (expected.offset, expected.data)


@given(offset=OFFSETS, data=DATA, tail=st.binary(max_size=20))
def test_upload_chunk_with_something_behind_it_is_read_as_protobuf_reads_it(offset, data, tail):
    raw = write_upload_chunk(Piece(offset, data)) + tail
    try:
        expected = UploadChunk.FromString(raw)
    except DecodeError:
        with pytest.raises(DecodeError):
            read_upload_chunk(raw)
        return
    found = read_upload_chunk(raw)
    assert (found.offset, bytes(found.data)) == (expected.offset, expected.data)


def test_data_is_a_view_of_what_arrived():
    raw = write_chunk(Piece(7, bytes(1000)))
    assert read_chunk(raw).data.obj is raw
