"""A parcel: records of values and of arrays as bytes, written and read without a copy of an array.

    8 bytes             length of the header, little-endian
    header              ParcelHeader of link.proto
    arrays, long blobs  in the header's order, each at the next multiple of 64, zeros between

There is one form of a parcel, and the reader accepts no other. Nothing in it is executable: values
are texts, numbers and bytes, arrays are of the plain dtypes in `DTYPES`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from fedtrain.link.faults import ParcelError
from fedtrain.link.link_pb2 import ParcelHeader, ParcelRecord, ParcelValue

Value = str | int | float | bool | bytes | list[int] | list[float]
Buffer = bytes | bytearray | memoryview

ALIGNMENT: Final = 64
LARGEST_HEADER: Final = 4 * 2**20
# A longer blob lies behind the header, as an array does.
LONGEST_BLOB: Final = 4096
MOST_DIMENSIONS: Final = 32
DTYPES: Final = frozenset(
    ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
)
_LENGTH_BYTES: Final = 8


@dataclass(frozen=True)
class Parcel:
    """What one end of the link tells the other.

    Attributes:
        message_type: What it asks, or answers, such as "train".
        values: Records of named values, in order.
        metrics: Names of those that are metrics: numbers and lists of numbers only.
        arrays: Records of named arrays, in order.
        error: Public code and text, instead of any record; None where there was no error.
    """

    message_type: str
    values: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    metrics: frozenset[str] = frozenset()
    arrays: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    error: tuple[int, str] | None = None


def pack(parcel: Parcel) -> list[memoryview]:
    """Return a parcel as buffers that follow each other.

    Args:
        parcel: The parcel; its arrays must not change while the buffers are in use.

    Raises:
        ValueError: It holds what a parcel cannot, or its header is too long.

    Guarantees:
        * Equal parcels have equal bytes.
        * No array and no blob is copied, but for arrays that are not contiguous or not
          little-endian.
    """
    header, contents = _lay_out(parcel)
    head = len(header).to_bytes(_LENGTH_BYTES, "little") + header
    buffers, end = [memoryview(head)], len(head)
    for content in contents:
        gap = -end % ALIGNMENT
        buffers.extend((memoryview(bytes(gap)), content))
        end += gap + len(content)
    return [buffer for buffer in buffers if len(buffer)]


def unpack(buffer: Buffer) -> Parcel:
    """Read a parcel.

    Args:
        buffer: All of its bytes, such as those of a mapped file.

    Returns:
        The parcel; its arrays are views of `buffer`, read-only where that is, its blobs copies.

    Raises:
        ParcelError: The bytes are anything but the canonical form of a parcel.

    Guarantees:
        * `b"".join(pack(unpack(buffer))) == buffer`.
        * Every length is compared with what is left before anything is taken; beside the blobs, no
          more memory is taken than a small multiple of the header's length, itself limited.
    """
    view = memoryview(buffer).cast("B")
    head = _read_head(view)
    try:
        header = ParcelHeader.FromString(head)
    except DecodeError as error:
        raise ParcelError(f"parcel: its header of {len(head)} bytes is damaged") from error
    parcel = _read_parcel(header, _Body(view, _LENGTH_BYTES + len(head)))
    try:
        is_canonical = _lay_out(parcel)[0] == head
    except ValueError as error:
        raise ParcelError(f"parcel: {error}") from error
    if not is_canonical:
        raise ParcelError("parcel: its header is not in canonical form")
    return parcel


def _lay_out(parcel: Parcel) -> tuple[bytes, list[memoryview]]:
    """Return a parcel's header, and what lies behind it, in order."""
    header, contents = ParcelHeader(message_type=parcel.message_type), _Contents()
    _check_names(parcel)
    for name, values in parcel.values.items():
        metrics = name in parcel.metrics
        record = header.records.add(name=name, metrics=metrics)
        for key, value in values.items():
            if metrics and isinstance(value, str | bytes | bool):
                raise ValueError(f"{name}.{key} is no number, as all metrics are")
            _write_value(record.values.add(key=key), value, contents)
    for name, arrays in parcel.arrays.items():
        header.records.add(name=name, arrays=True)
        for key, array in arrays.items():
            plain, dtype = _make_plain(array, f"{name}.{key}")
            offset = contents.append(plain.reshape(-1).view(np.uint8).data)
            header.arrays.add(record=name, name=key, dtype=dtype, shape=array.shape, offset=offset)
    if parcel.error is not None:
        header.error.code, header.error.reason = parcel.error
        header.error.SetInParent()
    data = header.SerializeToString(deterministic=True)
    if len(data) > LARGEST_HEADER:
        raise ValueError(
            f"a header of {len(data)} bytes is longer than {LARGEST_HEADER}; send arrays instead"
            " of values"
        )
    return data, contents.buffers


def _check_names(parcel: Parcel) -> None:
    both = sorted(parcel.values.keys() & parcel.arrays.keys())
    if both:
        raise ValueError(f"record {both[0]!r} has values and arrays; give them two names")
    strangers = sorted(parcel.metrics - parcel.values.keys())
    if strangers:
        raise ValueError(f"metrics {strangers[0]!r} are no record of values")
    if parcel.error is not None and (parcel.values or parcel.arrays):
        raise ValueError("an error has no records")


class _Contents:
    """What lies behind a header, as it is appended."""

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []
        self._end = 0

    def append(self, buffer: memoryview) -> int:
        """Return the offset at which a buffer will lie."""
        offset = self._end + -self._end % ALIGNMENT
        self._end = offset + len(buffer)
        self.buffers.append(buffer)
        return offset


def _write_value(target: ParcelValue, value: Value, contents: _Contents) -> None:
    match value:
        case str():
            target.text = value
        case bool():
            target.flag = value
        case int():
            target.whole = value
        case float():
            target.number = value
        case bytes() if len(value) > LONGEST_BLOB:
            target.extent.offset = contents.append(memoryview(value))
            target.extent.size = len(value)
        case bytes():
            target.blob = value
        case list() if all(type(one) is int for one in value):
            target.wholes.values.extend(value)  # type: ignore[arg-type]
            target.wholes.SetInParent()
        case list() if all(isinstance(one, float) for one in value):
            target.numbers.values.extend(value)
        case _:
            raise ValueError(f"{target.key}: a {type(value).__name__} of this kind is no value")


def _make_plain(array: NDArray[Any], name: str) -> tuple[NDArray[Any], str]:
    """Return an array as contiguous little-endian numbers, and what its dtype is called."""
    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in DTYPES or array.ndim > MOST_DIMENSIONS:
        raise ValueError(f"{name}: {array.ndim} dimensions of {array.dtype} are no plain array")
    return np.ascontiguousarray(array, dtype=dtype), dtype.str


def _read_head(view: memoryview) -> bytes:
    if len(view) < _LENGTH_BYTES:
        raise ParcelError(f"parcel: {len(view)} bytes are too few; truncated")
    size = int.from_bytes(view[:_LENGTH_BYTES], "little")
    left = len(view) - _LENGTH_BYTES
    if size > min(left, LARGEST_HEADER):
        raise ParcelError(
            f"parcel: a header of {size} bytes, {left} are left and {LARGEST_HEADER} allowed"
        )
    return bytes(view[_LENGTH_BYTES : _LENGTH_BYTES + size])


class _Body:
    """What lies behind a header, taken from its start to its end, once."""

    def __init__(self, view: memoryview, end_of_header: int) -> None:
        self._view = view
        self._at = end_of_header
        self._origin = end_of_header + -end_of_header % ALIGNMENT

    def take(self, offset: int, size: int, *, name: str) -> memoryview:
        """Return the content of an item, which must follow the one before it."""
        start = self._at + -self._at % ALIGNMENT
        if self._origin + offset != start:
            raise ParcelError(f"{name}: offset {offset} is not where the item before it ends")
        left = len(self._view) - start
        if size > left:
            raise ParcelError(f"{name}: {size} bytes are due and {max(left, 0)} are left")
        if any(self._view[self._at : start]):
            raise ParcelError(f"{name}: the bytes before it are not zero")
        self._at = start + size
        return self._view[start : self._at]

    def finish(self) -> None:
        """Raise if bytes are left."""
        if self._at != len(self._view):
            raise ParcelError(f"parcel: {len(self._view) - self._at} bytes follow its end")


def _read_parcel(header: ParcelHeader, body: _Body) -> Parcel:
    values: dict[str, dict[str, Value]] = {}
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for record in header.records:
        if record.arrays:
            arrays[record.name] = {}
        else:
            values[record.name] = dict(_read_values(record, body))
    for array in header.arrays:
        name = f"{array.record}.{array.name}"[:200]
        if array.record not in arrays:
            raise ParcelError(f"{name}: its record holds no arrays")
        shape = tuple(array.shape)
        arrays[array.record][array.name] = _read_array(array.dtype, shape, array.offset, body, name)
    body.finish()
    return Parcel(
        message_type=header.message_type,
        values=values,
        metrics=frozenset(record.name for record in header.records if record.metrics),
        arrays=arrays,
        error=(header.error.code, header.error.reason) if header.HasField("error") else None,
    )


def _read_values(record: ParcelRecord, body: _Body) -> Iterator[tuple[str, Value]]:
    for value in record.values:
        kind = value.WhichOneof("value")
        match kind:
            case "wholes" | "numbers":
                yield value.key, list(getattr(value, kind).values)
            case "extent":
                name = f"{record.name}.{value.key}"[:200]
                extent = value.extent
                yield value.key, bytes(body.take(extent.offset, extent.size, name=name))
            case None:
                raise ParcelError(f"{record.name[:100]}.{value.key[:100]}: no value")
            case _:
                yield value.key, getattr(value, kind)


def _read_array(
    dtype: str, shape: tuple[int, ...], offset: int, body: _Body, name: str
) -> NDArray[Any]:
    if dtype not in DTYPES or len(shape) > MOST_DIMENSIONS:
        raise ParcelError(f"{name}: {len(shape)} dimensions of {dtype[:20]!r} are no plain array")
    kind = np.dtype(dtype)
    content = body.take(offset, math.prod(shape) * kind.itemsize, name=name)
    raw = np.frombuffer(content, np.uint8)
    if kind == np.bool_ and raw.size and raw.max() > 1:
        raise ParcelError(f"{name}: a truth value that is neither 0 nor 1")
    try:
        return raw.view(kind).reshape(shape)
    except ValueError as error:  # an empty array of dimensions that no memory could index
        raise ParcelError(f"{name}: no array has its shape") from error
