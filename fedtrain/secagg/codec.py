"""Canonical bytes of a record: a strict subset of MessagePack, read along a declared schema.

A record class is a frozen dataclass whose fields carry a kind (`Whole`, `Text`, `Blob`, `Items`,
`Record`). It is written as the array [version, tag, field, ...] with every header in its shortest
form. The reader knows what is due at every byte, so that it checks a length against the declared
limit and against what is left before it takes anything: no map, no extension, no nesting but the
schema's. There is one encoding of a value, and the reader accepts no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, Protocol, TypeVar

from fedtrain.secagg.faults import MessageError

VERSION: Final = 1
# MessagePack's headers: (fixed first byte or None, its limit), then 8, 16 and 32 bits of length.
_HEADERS: Final = {
    "whole": (0x00, 0x7F, (0xCC, 0xCD, 0xCE)),
    "text": (0xA0, 31, (0xD9, 0xDA, 0xDB)),
    "blob": (0x00, -1, (0xC4, 0xC5, 0xC6)),
    "items": (0x90, 15, (None, 0xDC, 0xDD)),
}


class Kind(Protocol):
    """How one field is written and read."""

    def write(self, value: Any) -> Iterator[bytes | memoryview]:
        """Yield the pieces of a value's encoding."""
        ...

    def read(self, reader: "Reader", name: str) -> Any:
        """Take one value, or raise MessageError."""
        ...


class Reader:
    """A position in bytes that are read from start to end, once."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data).cast("B")
        self._at = 0

    def take(self, size: int, name: str) -> memoryview:
        """Return the next `size` bytes without a copy."""
        left = len(self._data) - self._at
        if size > left:
            raise MessageError(f"{name}: {size} bytes are due and {left} are left; truncated")
        self._at += size
        return self._data[self._at - size : self._at]

    def take_header(self, family: str, name: str) -> int:
        """Return the number in a header of a family of `_HEADERS`, in its shortest form."""
        base, most, codes = _HEADERS[family]
        first = self.take(1, name)[0]
        if base <= first <= base + most:
            return first - base
        if first not in codes:
            raise MessageError(f"{name}: byte 0x{first:02x} is no {family}")
        width = 2 ** codes.index(first)
        number = int.from_bytes(self.take(width, name), "big")
        if bytes([first]) + number.to_bytes(width, "big") != write_header(family, number):
            raise MessageError(f"{name}: {number} is not in its shortest form")
        return number

    def finish(self, name: str) -> None:
        """Raise if bytes are left."""
        left = len(self._data) - self._at
        if left:
            raise MessageError(f"{name}: {left} bytes follow its end")


def write_header(family: str, number: int) -> bytes:
    """Return the shortest header of a family of `_HEADERS` for a number below 2^32."""
    base, most, codes = _HEADERS[family]
    if number <= most:
        return bytes([base + number])
    for width, code in zip((1, 2, 4), codes, strict=True):
        if code is not None and number < 256**width:
            return bytes([code]) + number.to_bytes(width, "big")
    raise ValueError(f"{number} does not fit a {family} header")


@dataclass(frozen=True)
class Whole:
    """A whole number from 0 to `limit` (below 2^32)."""

    limit: int = 2**32 - 1

    def write(self, value: int) -> Iterator[bytes | memoryview]:
        """Yield the pieces of a value's encoding."""
        if not 0 <= value <= self.limit:
            raise ValueError(f"{value} is not between 0 and {self.limit}")
        yield write_header("whole", value)

    def read(self, reader: Reader, name: str) -> int:
        """Take one number."""
        value = reader.take_header("whole", name)
        if value > self.limit:
            raise MessageError(f"{name}: {value} is above {self.limit}")
        return value


@dataclass(frozen=True)
class Text:
    """UTF-8 of 1 to `limit` bytes."""

    limit: int

    def write(self, value: str) -> Iterator[bytes | memoryview]:
        """Yield the pieces of a value's encoding."""
        data = value.encode()
        if not 1 <= len(data) <= self.limit:
            raise ValueError(f"{len(data)} bytes of text are not between 1 and {self.limit}")
        yield write_header("text", len(data))
        yield data

    def read(self, reader: Reader, name: str) -> str:
        """Take one text."""
        size = reader.take_header("text", name)
        if not 1 <= size <= self.limit:
            raise MessageError(f"{name}: {size} bytes of text, 1 to {self.limit} are allowed")
        try:
            return bytes(reader.take(size, name)).decode()
        except UnicodeDecodeError as error:
            raise MessageError(f"{name}: not UTF-8") from error


@dataclass(frozen=True)
class Blob:
    """Bytes: exactly `limit` of them, or up to it. Uncopied ones are a view of the message."""

    limit: int
    exact: bool = True
    copied: bool = True

    def write(self, value: bytes | memoryview) -> Iterator[bytes | memoryview]:
        """Yield the pieces of a value's encoding."""
        view = memoryview(value).cast("B")
        if len(view) > self.limit or (self.exact and len(view) != self.limit):
            raise ValueError(f"{len(view)} bytes do not fit a field of {self.limit}")
        yield write_header("blob", len(view))
        yield view

    def read(self, reader: Reader, name: str) -> bytes | memoryview:
        """Take the bytes."""
        size = reader.take_header("blob", name)
        if size > self.limit or (self.exact and size != self.limit):
            raise MessageError(f"{name}: {size} bytes do not fit a field of {self.limit}")
        view = reader.take(size, name)
        return bytes(view) if self.copied else view


@dataclass(frozen=True)
class Items:
    """A tuple of up to `limit` values of one kind."""

    kind: Kind
    limit: int

    def write(self, value: tuple[Any, ...]) -> Iterator[bytes | memoryview]:
        """Yield the pieces of a value's encoding."""
        if len(value) > self.limit:
            raise ValueError(f"{len(value)} items are more than {self.limit}")
        yield write_header("items", len(value))
        for item in value:
            yield from self.kind.write(item)

    def read(self, reader: Reader, name: str) -> tuple[Any, ...]:
        """Take the values one after the other."""
        count = reader.take_header("items", name)
        if count > self.limit:
            raise MessageError(f"{name}: {count} items, at most {self.limit} are allowed")
        return tuple(self.kind.read(reader, name) for _ in range(count))


class Message:
    """Parent of the record classes; a class that travels alone has a `TAG` of its own."""

    TAG: ClassVar[int]


M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Record:
    """A record class inside another, written as the array of its fields."""

    of: type[Message]

    def write(self, value: Message) -> Iterator[bytes | memoryview]:
        """Yield the pieces of a value's encoding."""
        yield write_header("items", len(_list_kinds(self.of)))
        yield from _write_fields(value)

    def read(self, reader: Reader, name: str) -> Message:
        """Take one record."""
        kinds = _list_kinds(self.of)
        count = reader.take_header("items", name)
        if count != len(kinds):
            raise MessageError(f"{name}: {count} fields where {len(kinds)} are due")
        return self.of(**{key: kind.read(reader, f"{name}.{key}") for key, kind in kinds.items()})


def declare(kind: Kind) -> Any:
    """Return a dataclass field of a kind."""
    return field(metadata={"kind": kind})


def encode(message: Message) -> bytes:
    """Return a message's canonical bytes.

    Raises:
        ValueError: A field breaks its own limit.
    """
    count = 2 + len(_list_kinds(type(message)))
    head = (write_header("items", count), bytes([VERSION]), bytes([message.TAG]))
    return b"".join((*head, *_write_fields(message)))


def decode(data: bytes | memoryview, kind: type[M]) -> M:
    """Read a message of a class.

    Raises:
        MessageError: The bytes are anything but the canonical encoding of such a message.

    Guarantees:
        * `encode(decode(data, kind)) == data`.
        * No more memory is taken than a small multiple of `len(data)`, whatever lengths the bytes
          claim; large fields are views of `data`.
    """
    kinds = _list_kinds(kind)
    reader = Reader(data)
    name = kind.__name__
    count = reader.take_header("items", name)
    version, tag = reader.take(2, name)
    if version != VERSION:
        raise MessageError(f"{name}: version {version}, this program speaks {VERSION}; update it")
    if tag != kind.TAG or count != 2 + len(kinds):
        raise MessageError(f"{name}: tag {tag} with {count} items; {kind.TAG} was due")
    values = {key: one.read(reader, f"{name}.{key}") for key, one in kinds.items()}
    reader.finish(name)
    return kind(**values)


def _list_kinds(record: type[Message]) -> dict[str, Kind]:
    return {one.name: one.metadata["kind"] for one in fields(record)}  # type: ignore[arg-type]


def _write_fields(message: Message) -> Iterator[bytes | memoryview]:
    for key, kind in _list_kinds(type(message)).items():
        yield from kind.write(getattr(message, key))
