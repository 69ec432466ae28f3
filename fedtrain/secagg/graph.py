"""Who masks with whom: everybody, or above 200 sites a sparse random graph.

The sparse graph is Harary's: the sites on a ring in random order, each joined to the k/2 nearest
on either side. Bell et al. 2020 need of a graph, but for a probability of 2^-40:

* no neighbourhood holds `threshold` corrupt sites (else they open a secret without the others);
* each neighbourhood keeps `threshold` live sites (else a mask cannot be removed);
* the honest survivors stay connected (else the masks of a part cancel by themselves). On a ring
  that is so if every k/2 sites in a row hold an honest survivor.

Two things differ from their protocol, whose numbers do not carry over. They let dropouts be random.
A coordinator chooses them, so that each site besides counts the survivors in every k/2 sites in a
row (the graph is public) and refuses a set that leaves one with fewer than `window_survivors`, more
than the corrupt ones that can sit there. And against a server that lies about dropouts they want
more than half of a neighbourhood in the threshold, so that no two halves of it open both secrets of
a site. Here the survivors are signed by the whole cohort's threshold before anything is revealed,
so that two survivor sets cannot both be, and the smaller threshold of an honest server is enough.

With n sites, C = floor(corrupt_share n) and D = floor(dropout_share n), places in the ring are
drawn without replacement, so that the corrupt ones among k others follow the hypergeometric law
H(n - 1, C, k); a union bound over n neighbourhoods and n windows of w = k/2 gives, with
2^-failure_bits / 2 for each pair:

    n P[H(n-1, C, k) >= t] and n P[H(n, C, w) >= s]   (security),
    n P[k - H(n-1, D, k) < t] and n P[w - H(n, D, w) < s]   (the round is not void).

A coordinator that could try g rings gains a factor g: the seed of the ring is a digest of context
and signed advertisements, so that a try costs it an attempt with every site.

References:
    Bell, Bonawitz, Gascon, Lepoint, Raykova 2020 (eprint 2020/704): the random Harary graph, and
    its degree from hypergeometric tails, which are computed exactly here.
"""

import functools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedtrain.errors import ConfigError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg.keys import derive_key

COMPLETE_UP_TO: Final = 200
FAILURE_BITS: Final = 40


@dataclass(frozen=True)
class GraphPlan:
    """Parameters of the graph of a cohort.

    Attributes:
        neighbours: k, even; 0 for the complete graph.
        threshold: Shares of a neighbourhood that open a secret; 0: the round's threshold.
        window_survivors: Fewest survivors among any k/2 sites in a row; 0 where complete.
    """

    neighbours: int = 0
    threshold: int = 0
    window_survivors: int = 0


@functools.lru_cache(maxsize=32)
def plan_graph(
    sites: int,
    *,
    dropout_share: float = 0.1,
    corrupt_share: float = 0.1,
    failure_bits: int = FAILURE_BITS,
    complete_up_to: int = COMPLETE_UP_TO,
) -> GraphPlan:
    """Choose the graph with the fewest neighbours that meets the four bounds above.

    Args:
        sites: n, the cohort.
        dropout_share: Share of sites that may fail without the round being void.
        corrupt_share: Share of sites that may work with the coordinator.
        failure_bits: Security and correctness each fail with at most 2^-failure_bits.
        complete_up_to: Largest cohort with a complete graph.

    Raises:
        ConfigError: The shares are not at least 0 with a sum below 1.
    """
    if min(dropout_share, corrupt_share) < 0 or not dropout_share + corrupt_share < 1:
        raise ConfigError(
            f"dropout_share = {dropout_share:g} and corrupt_share = {corrupt_share:g} must not be"
            " negative and sum to less than 1"
        )
    if sites <= complete_up_to:
        return GraphPlan()
    corrupt, dropped = math.floor(corrupt_share * sites), math.floor(dropout_share * sites)
    bound = 2.0**-failure_bits / 2 / sites
    for neighbours in range(4, sites - 1, 2):
        window = neighbours // 2
        threshold = _find_count(sites - 1, corrupt, neighbours, bound)
        survivors = _find_count(sites, corrupt, window, bound)
        gone = _find_count(sites - 1, dropped, neighbours, bound) - 1
        gone_window = _find_count(sites, dropped, window, bound) - 1
        if neighbours - gone >= threshold and window - gone_window >= survivors:
            return GraphPlan(neighbours, threshold, survivors)
    return GraphPlan()


def draw_ring(sites: tuple[str, ...], seed: bytes) -> tuple[str, ...]:
    """Return the sites in the random order that a public seed gives."""
    generator = SecureGenerator(derive_key(seed, "ring", length=32))
    keys = generator.draw_bytes(16 * len(sites)).reshape(len(sites), 16)
    order = sorted(range(len(sites)), key=lambda i: keys[i].tobytes())
    return tuple(sites[i] for i in order)


class Graph:
    """The neighbours of each site in one attempt of a round.

    Attributes:
        plan: Its parameters.
    """

    def __init__(self, sites: tuple[str, ...], plan: GraphPlan, *, seed: bytes) -> None:
        """Draw the graph.

        Args:
            sites: U1, those who advertised, ordered.
            plan: From `plan_graph` of the cohort.
            seed: Public digest of context and advertisements.
        """
        self._sites = sites
        self.plan = plan
        self._ring = draw_ring(sites, seed) if plan.neighbours else sites
        self._places = {site: place for place, site in enumerate(self._ring)}

    def list_neighbours(self, site: str) -> tuple[str, ...]:
        """Return the neighbours of a site, ordered, itself not among them."""
        n, half = len(self._ring), self.plan.neighbours // 2
        if not half or 2 * half >= n:
            return tuple(other for other in self._sites if other != site)
        place = self._places[site]
        steps = [*range(-half, 0), *range(1, half + 1)]
        return tuple(sorted(self._ring[(place + step) % n] for step in steps))

    def count_fewest_survivors(self, survivors: frozenset[str]) -> int:
        """Return the fewest survivors among any k/2 sites in a row."""
        alive = np.array([site in survivors for site in self._ring], dtype=np.int64)
        window = max(1, min(self.plan.neighbours // 2, len(alive)))
        sums = np.cumsum(np.concatenate(([0], alive, alive[: window - 1])))
        return int((sums[window:] - sums[:-window]).min())


def _find_count(population: int, marked: int, drawn: int, bound: float) -> int:
    """Return the smallest c with P[H(population, marked, drawn) >= c] <= bound, at least 1."""
    tail = 0.0
    for count in range(min(marked, drawn), 0, -1):
        tail += compute_probability(population, marked, drawn, count)
        if tail > bound:
            return count + 1
    return 1


def compute_probability(population: int, marked: int, drawn: int, count: int) -> float:
    """Return P[H = count]: `count` marked among `drawn` without replacement."""
    if count > marked or drawn - count > population - marked:
        return 0.0
    chosen = _log_choose(marked, count) + _log_choose(population - marked, drawn - count)
    return math.exp(chosen - _log_choose(population, drawn))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
