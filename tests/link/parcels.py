"""Parcels of every kind, for properties."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedtrain.link.parcel import DTYPES, LONGEST_BLOB, Parcel, pack

NAMES = st.text(max_size=8)
WHOLES = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.one_of(
    WHOLES,
    st.floats(allow_nan=True),
    st.lists(WHOLES, max_size=4),
    st.lists(st.floats(), max_size=4),
)
BLOBS = st.one_of(
    st.binary(max_size=20),
    st.integers(LONGEST_BLOB - 1, LONGEST_BLOB + 70).map(lambda size: b"\xa5" * size),
)
VALUES = st.one_of(NUMBERS, st.booleans(), st.text(max_size=20), BLOBS)
ARRAYS = npst.arrays(
    dtype=st.sampled_from(sorted(DTYPES)),
    shape=npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


@st.composite
def parcels(draw):
    """Return any parcel."""
    message_type = draw(st.text(max_size=20))
    if draw(st.booleans()) and draw(st.booleans()):
        error = draw(st.tuples(st.integers(-(2**31), 2**31 - 1), st.text(max_size=20)))
        return Parcel(message_type, error=error)
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    values, metrics, arrays = {}, set(), {}
    for name in names:
        kind = draw(st.sampled_from(["config", "metrics", "arrays"]))
        if kind == "arrays":
            arrays[name] = draw(st.dictionaries(NAMES, ARRAYS, max_size=3))
        else:
            of = NUMBERS if kind == "metrics" else VALUES
            values[name] = draw(st.dictionaries(NAMES, of, max_size=4))
            metrics |= {name} if kind == "metrics" else set()
    return Parcel(message_type, values, frozenset(metrics), arrays)


def join(parcel):
    """Return a parcel's bytes in one piece."""
    return b"".join(pack(parcel))


def make_parcel():
    """Return a small parcel with one of everything."""
    return Parcel(
        "train",
        {
            "config": {"round": 3, "rate": 0.5, "name": "alpha", "is_last": True, "key": b"\1\2"},
            "large": {"blob": b"\7" * (LONGEST_BLOB + 1)},
            "metrics": {"loss": [0.5, 0.25], "counts": [1, 2]},
        },
        frozenset({"metrics"}),
        {
            "arrays": {
                "weights": np.arange(6, dtype="<f4").reshape(2, 3),
                "steps": np.array(7, dtype="<i8"),
                "mask": np.array([True, False, True]),
            },
            "none": {},
        },
    )
