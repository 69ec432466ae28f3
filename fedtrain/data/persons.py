"""Which person each record is about, as a number; who that is is forgotten as it is read.

All that is kept is which records belong together, and a digest of the name, by which a split under
privacy is drawn and which stays in this process. So a name of a person can be in no message, log,
fingerprint or saved model, and is no feature.

Shapes: n records, p persons.
"""

import hashlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.errors import DataError

_WHOLE: Final = frozenset("iu")
# numpy writes a missing value among texts as one of these.
_MISSING: Final = ("", "?", "NA", "<NA>", "NaN", "nan", "None", "null")


def number_persons(names: NDArray[Any]) -> NDArray[np.int64]:
    """Number persons by first appearance.

    Args:
        names: What tells persons apart, integers or texts `(n,)`.

    Returns:
        The person of each record `(n,)`: 0..p-1, every number in use. Where each record has a
        person of its own it is 0..n-1.
    """
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    numbers = np.empty(len(first), dtype=np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    return numbers[inverse.reshape(-1)]


def read_persons(names: NDArray[Any], records: int, source: str) -> NDArray[np.int64]:
    """Check an array that a source gives as persons, and number them.

    Args:
        names: One whole number or text a record; texts differ by more than outer white space.
        records: n.
        source: What the array came from, for messages.

    Raises:
        DataError: There is not one name a record, or one is missing: not finite, or a text such as
            '', 'nan' or 'None'. A record without a person has no unit to be protected with.
    """
    if names.shape != (records,):
        raise DataError(
            f"{source}: persons have shape {names.shape} and there are {records} records; give one"
            " person a record"
        )
    if names.dtype.kind == "O" and all(isinstance(name, str) for name in names):
        names = names.astype(str)
    if names.dtype.kind == "U":
        names = np.char.strip(names)
        usable = not np.isin(names, _MISSING).any()
    elif names.dtype.kind == "f":
        usable = bool((np.isfinite(names) & (names == np.rint(names))).all())
    else:
        usable = names.dtype.kind in _WHOLE
    if not usable:
        raise DataError(
            f"{source}: persons must be whole numbers or texts, without a gap; fill it or remove"
            " those records"
        )
    return number_persons(names)


def digest_persons(names: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a digest of each record's person's name, `(n,)`.

    Args:
        names: As `read_persons` takes them, `(n,)`.

    Guarantees:
        A record's digest depends on its own name alone: not on which others there are, nor on
        whether they made the array one of texts, of integers or of floats. Two persons share one
        by chance only (2^-64 a pair), and are then split together.
    """
    distinct, owner = np.unique(names, return_inverse=True)
    texts = [value.strip() if isinstance(value, str) else str(int(value)) for value in distinct]
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), "<u8")[owner.reshape(-1)]


def compute_person_labels(
    labels: NDArray[np.integer], persons: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return each person's most frequent label `(p,)`, of several the lowest.

    Args:
        labels: Class of each record `(n,)`.
        persons: Person of each record, as `number_persons` gives them `(n,)`.
    """
    classes = int(labels.max(initial=0)) + 1
    pairs, counts = np.unique(persons * classes + labels, return_counts=True)
    owner, label = np.divmod(pairs, classes)
    by_person = np.lexsort((label, -counts, owner))
    first = np.flatnonzero(np.diff(owner[by_person], prepend=-1))
    most_frequent: NDArray[np.int64] = label[by_person][first]
    return most_frequent


def verify_one_site(persons: NDArray[np.int64], sites: NDArray[np.integer]) -> None:
    """Check that no person has records at two sites.

    Args:
        persons: Person of each record `(n,)`.
        sites: Site of each record `(n,)`.

    Guarantees:
        Each person's records are all at one site, so that the federation's epsilon for a person is
        the largest that a site spends (parallel composition over disjoint shards).

        Only a simulation, which has all sites' records, can tell. **A deployed site cannot**: it
        sees its own records. There the statement is one of a person at one site, and for a person
        who is known at k sites the k epsilons (and deltas) add up, by sequential composition.

    Raises:
        DataError: A person is at two sites.

    References:
        McSherry 2009, "Privacy integrated queries": parallel and sequential composition.
    """
    count = int(sites.max(initial=0)) + 1
    owners = np.unique(persons * count + sites) // count
    shared = int((np.bincount(owners) > 1).sum())
    if shared:
        raise DataError(
            f"{shared} of the persons are at more than one site, where their epsilons would add up;"
            " keep a person's records at one site or, where a name means another person at each"
            " site, put the site into it"
        )
