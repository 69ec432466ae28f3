"""Sites of a simulation that attack the training: who they are, and what they do.

What they do is what a site can do with its own records and its own update, its client unchanged:
each check that a client makes of what it sends, as the bound of a secure sum, meets them too.

Shapes: d is the length of the flat parameter vector.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedtrain.config import AttackersSection
from fedtrain.data.shards import Split
from fedtrain.errors import ConfigError
from fedtrain.params import Vector
from fedtrain.seeds import make_numpy_generator


def choose_attackers(
    section: AttackersSection, site_names: Sequence[str], *, seed: int
) -> frozenset[str]:
    """Return the names of the sites that attack.

    Args:
        section: The config's.
        site_names: All sites.
        seed: Of the run; a share is drawn from it.

    Raises:
        ConfigError: A named site is none, or the share of so few sites is none.
    """
    if section.sites is not None:
        unknown = sorted(set(section.sites) - set(site_names))
        if unknown:
            raise ConfigError(
                f"attackers.sites: no site is called {unknown[0]!r}; they are"
                f" {', '.join(site_names[:5])}{', ...' if len(site_names) > 5 else ''}"
            )
        return frozenset(section.sites)
    count = round((section.share or 0.0) * len(site_names))
    if not count:
        raise ConfigError(
            f"attackers.share = {section.share:g} of {len(site_names)} sites is none; raise it to"
            f" {1 / len(site_names):.2g}"
        )
    order = make_numpy_generator(seed, "attackers").permutation(len(site_names))
    return frozenset(site_names[index] for index in order[:count])


def corrupt_records(section: AttackersSection, records: Split, *, classes: int) -> Split:
    """Return an attacker's training records: under label_flip, class c becomes C - 1 - c."""
    if section.kind != "label_flip":
        return records
    return replace(records, labels=classes - 1 - records.labels)


def corrupt_update(section: AttackersSection, start: Vector, vector: Vector) -> Vector:
    """Return an attacker's local model `(d,)`: under sign_flip and scaling, another update."""
    if section.kind == "label_flip":
        return vector
    factor = np.float32(-section.factor if section.kind == "sign_flip" else section.factor)
    corrupted: Vector = start + factor * (vector - start)
    return corrupted
