"""Chunks on the wire without copies: what protobuf writes and reads for `Chunk` and `UploadChunk`.

Protobuf copies the bytes of a chunk twice at each end. Here a chunk is written by one copy, behind
the few bytes that protobuf writes before it, and read as a view of what arrived. What arrives in
any other form of the same message is left to protobuf.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from fedtrain.link import link_pb2, link_pb2_grpc
from fedtrain.link.parcel import Buffer

if TYPE_CHECKING:
    Download = grpc.UnaryStreamMultiCallable[link_pb2.DownloadRequest, "Piece"]
    Upload = grpc.StreamUnaryMultiCallable["Piece", link_pb2.UploadReply]
_SERVICE: Final = f"{link_pb2.DESCRIPTOR.package}.Link"
_DOWNLOAD, _UPLOAD = f"/{_SERVICE}/Download", f"/{_SERVICE}/Upload"
# Tags of the fields: number << 3 | wire type, see link.proto.
_CHUNK: Final = (0x08, 0x12)  # offset, data
_UPLOAD_CHUNK: Final = (0x10, 0x1A)
_HEADER: Final = 0x0A
_MOST_BITS: Final = 63


@dataclass(frozen=True)
class Piece:
    """A `Chunk`, or an `UploadChunk`.

    Attributes:
        offset: Where its data lies in the content.
        data: Some of the content.
        header: Of an upload, in its first chunk.
    """

    offset: int
    data: Buffer
    header: link_pb2.UploadHeader | None = None


def write_chunk(piece: Piece) -> bytes:
    """Return a piece as a `Chunk`."""
    return _write(piece, _CHUNK, b"")


def read_chunk(raw: bytes) -> Piece:
    """Read a `Chunk`.

    Raises:
        DecodeError: It is none.
    """
    found = _read(memoryview(raw), _CHUNK)
    if found is not None:
        return found
    chunk = link_pb2.Chunk.FromString(raw)
    return Piece(chunk.offset, chunk.data)


def write_upload_chunk(piece: Piece) -> bytes:
    """Return a piece as an `UploadChunk`."""
    head = b""
    if piece.header is not None:
        header = piece.header.SerializeToString()
        head = bytes([_HEADER]) + _write_number(len(header)) + header
    return _write(piece, _UPLOAD_CHUNK, head)


def read_upload_chunk(raw: bytes) -> Piece:
    """Read an `UploadChunk`.

    Raises:
        DecodeError: It is none.
    """
    found = _read(memoryview(raw), _UPLOAD_CHUNK)
    if found is not None:
        return found
    chunk = link_pb2.UploadChunk.FromString(raw)
    return Piece(chunk.offset, chunk.data, chunk.header if chunk.HasField("header") else None)


def make_download(channel: grpc.Channel) -> "Download":
    """Return the call `Download`, whose chunks are pieces."""
    return channel.unary_stream(
        _DOWNLOAD,
        request_serializer=link_pb2.DownloadRequest.SerializeToString,
        response_deserializer=read_chunk,
    )


def make_upload(channel: grpc.Channel) -> "Upload":
    """Return the call `Upload`, whose chunks are pieces."""
    return channel.stream_unary(
        _UPLOAD,
        request_serializer=write_upload_chunk,
        response_deserializer=link_pb2.UploadReply.FromString,
    )


def add_to_server(servicer: Any, server: grpc.Server) -> None:
    """Add the service `Link` to a server; its chunks are pieces."""
    link_pb2_grpc.add_LinkServicer_to_server(servicer, server)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Download": grpc.unary_stream_rpc_method_handler(
            servicer.Download,
            request_deserializer=link_pb2.DownloadRequest.FromString,
            response_serializer=write_chunk,
        ),
        "Upload": grpc.stream_unary_rpc_method_handler(
            servicer.Upload,
            request_deserializer=read_upload_chunk,
            response_serializer=link_pb2.UploadReply.SerializeToString,
        ),
    }
    # In the place of those that protobuf's plugin made.
    server.add_registered_method_handlers(_SERVICE, handlers)


def _write(piece: Piece, tags: tuple[int, int], head: bytes) -> bytes:
    offset = bytes([tags[0]]) + _write_number(piece.offset) if piece.offset else b""
    if not len(piece.data):
        return head + offset
    return b"".join((head, offset, bytes([tags[1]]), _write_number(len(piece.data)), piece.data))


def _read(view: memoryview, tags: tuple[int, int]) -> Piece | None:
    """Return offset and data, where they are all of a message, in order; else None."""
    at, offset = 0, 0
    if view[:1] == bytes([tags[0]]):
        number = _read_number(view, 1)
        if number is None:
            return None
        offset, at = number
    if view[at : at + 1] != bytes([tags[1]]):
        return None
    number = _read_number(view, at + 1)
    if number is None or number[1] + number[0] != len(view):
        return None
    return Piece(offset, view[number[1] :])


def _write_number(value: int) -> bytes:
    return bytes(_split(value))


def _split(value: int) -> Iterator[int]:
    while value >= 0x80:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def _read_number(view: memoryview, at: int) -> tuple[int, int] | None:
    """Return a number and where what follows it begins; None where there is no plain one."""
    value = 0
    for place, byte in enumerate(view[at : at + _MOST_BITS // 7]):
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return value, at + place + 1
    return None
