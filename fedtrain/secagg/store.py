"""Where a site keeps what it must not forget: one record a run, written before an answer leaves."""

from typing import Final, Protocol

MASKED: Final = 3
SIGNED: Final = 4
UNMASKED: Final = 5


class StateStore(Protocol):
    """Durable bytes by key. `save` returns only when they would survive a power cut."""

    def load(self, key: str) -> bytes | None:
        """Return what was saved last under a key, or None."""
        ...

    def save(self, key: str, data: bytes) -> None:
        """Replace what is stored under a key, all or nothing."""
        ...


class MemoryStore:
    """A store that lasts as long as the process: for simulations and tests."""

    def __init__(self) -> None:
        self._items: dict[str, bytes] = {}

    def load(self, key: str) -> bytes | None:
        """Return what was saved last under a key, or None."""
        return self._items.get(key)

    def save(self, key: str, data: bytes) -> None:
        """Replace what is stored under a key."""
        self._items[key] = data
