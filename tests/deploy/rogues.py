"""Agents that answer wrongly: the real agent, with an app that is not the installed one."""

import numpy as np

from fedtrain.link.parcel import pack, unpack


def corrupt(work: type, how: str) -> type:
    """Return a `Work` whose answers are changed before they are kept and sent."""
    change = _CHANGES[how]

    class Rogue(work):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            self.earlier = []

        def answer(self, task: bytes, data: memoryview) -> list[memoryview]:
            honest = b"".join(super().answer(task, data))
            parcel = unpack(memoryview(bytearray(honest)))
            if not parcel.message_type.startswith("train"):
                return [memoryview(honest)]
            self.earlier.append(honest)
            return change(parcel, self.earlier)

    return Rogue


def _poison(parcel, _):
    for record in parcel.arrays.values():
        for array in record.values():
            if array.dtype.kind == "f":
                array[...] = np.nan
    return pack(parcel)


def _cut(parcel, _):
    for record in parcel.arrays.values():
        for name, array in record.items():
            record[name] = array.reshape(-1)[:-1].copy()
    return pack(parcel)


def _replay(parcel, earlier):
    """Answer with what was answered to the first task of this kind."""
    for old in earlier:
        if unpack(memoryview(bytearray(old))).message_type == parcel.message_type:
            return [memoryview(old)]
    raise AssertionError


def _garble(parcel, _):
    return [memoryview(b"\xff" * 5000)]


_CHANGES = {"nan": _poison, "shape": _cut, "replay": _replay, "garbage": _garble}
