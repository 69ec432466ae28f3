"""Made-up data of kinds that no package ships: graphs and ratings, each from a stated process.

They are the same wherever and whenever they are made. Sites differ, as real ones do: in how dense
their graphs are and which kinds they see, and in the taste of their users.

Shapes: n records, k nodes of a graph.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.columns import Category
from fedtrain.data.persons import digest_persons, number_persons
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records

GRAPH_KINDS: Final = ("alike", "opposite", "mixed")
GRAPH_SITES, GRAPHS, NODES = 12, 90, 16
RATING_SITES, USERS, ITEMS, RATED, KNOWN = 16, 60, 300, 40, 8
MANY_USERS, FEW_ITEMS = 400, 60  # where persons are protected: more of them for each number
_TASTES: Final = 3
_SEED: Final = 20_261_121


def generate_graphs() -> Records:
    """Make graphs whose kind shows in who is joined to whom, and in nothing else.

    Twelve sites have 90 graphs each, of 8 to 16 nodes. Each node is of one of two types, by a fair
    coin: its features, one-hot. Two nodes are joined with the site's own density, 0.2 to 0.45, on
    average; in a graph `alike` those of one type nine times as often as others, in one `opposite`
    the other way round, in one `mixed` as often. A site's shares of the three kinds are a Dirichlet
    draw with concentration 2.

    Returns:
        Records `(n, k, k + 2)` of float32: weights to all nodes, 0 or 1, then features; natural
        sites.
    """
    generator = np.random.default_rng(_SEED)
    features = np.zeros((GRAPH_SITES * GRAPHS, NODES, NODES + 2), np.float32)
    labels = np.zeros(len(features), np.int32)
    for site in range(GRAPH_SITES):
        density = generator.uniform(0.2, 0.45)
        shares = generator.dirichlet([2.0] * len(GRAPH_KINDS))
        for number in range(site * GRAPHS, (site + 1) * GRAPHS):
            labels[number] = generator.choice(len(GRAPH_KINDS), p=shares)
            _draw_graph(features[number], int(labels[number]), density, generator)
    return Records(
        features=features,
        labels=Category(labels, GRAPH_KINDS),
        public=PublicConstants(
            input_shape=features.shape[1:], value_range=(0.0, 1.0), label_names=GRAPH_KINDS
        ),
        sites=_name_sites("laboratory", GRAPH_SITES, GRAPHS),
    )


def generate_ratings() -> Records:
    """Make choices of users who like what suits their taste.

    Sixteen shops have 60 users each, and 300 items are for sale everywhere. An item's and a user's
    taste are normal in three dimensions, the users' around their shop's own (deviation 0.7). A user
    tries 40 items at random and likes one with probability `sigmoid(2 taste . taste + bias)`, the
    item's bias being normal with deviation 0.5. The first 8 that a user likes are known of them;
    each item tried that is not among these is a record. Users who like fewer are left out.

    Returns:
        Records `(n, 9)` of ids: 8 known items, then the item in question; liked or not; the user
        of each, as its person; natural sites.
    """
    return _generate_ratings(USERS, ITEMS)


def generate_many_ratings() -> Records:
    """Make choices of many users: as `generate_ratings`, 400 users a shop and 60 items in all."""
    return _generate_ratings(MANY_USERS, FEW_ITEMS)


def _generate_ratings(users_of_a_site: int, count: int) -> Records:
    """Make the choices of so many users a site among so many items."""
    generator = np.random.default_rng(_SEED + 1)
    items = generator.normal(size=(count, _TASTES))
    biases = generator.normal(scale=0.5, size=count)
    rows: list[NDArray[np.int64]] = []
    owners: list[tuple[int, int]] = []
    for site in range(RATING_SITES):
        taste = generator.normal(scale=0.7, size=_TASTES)
        for user in range(site * users_of_a_site, (site + 1) * users_of_a_site):
            found = _draw_choices(items, biases, taste, generator=generator)
            rows.append(found)
            owners.extend([(site, user)] * len(found))
    table, (sites, users) = np.concatenate(rows), np.array(owners).T
    return Records(
        features=table[:, :-1].astype(np.uint16),
        labels=Category(table[:, -1].astype(np.int32), ("not liked", "liked")),
        public=PublicConstants(
            input_shape=(KNOWN + 1,), label_names=("not liked", "liked"), is_discrete=True
        ),
        sites=Category(sites.astype(np.int32), _make_names("shop", RATING_SITES)),
        persons=number_persons(users),
        person_digests=digest_persons(users),
    )


def _draw_graph(
    graph: NDArray[np.float32], kind: int, density: float, generator: np.random.Generator
) -> None:
    """Fill one graph `(k, k + 2)`, of zeros before."""
    nodes = int(generator.integers(NODES // 2, NODES + 1))
    types = generator.integers(0, 2, nodes)
    alike = types[:, None] == types
    factors = {"alike": (1.8, 0.2), "opposite": (0.2, 1.8), "mixed": (1.0, 1.0)}[GRAPH_KINDS[kind]]
    chances = density * np.where(alike, *factors)
    joined = np.triu(generator.random((nodes, nodes)) < chances, 1)
    graph[:nodes, :nodes] = joined | joined.T
    graph[np.arange(nodes), NODES + types] = 1.0


def _draw_choices(
    items: NDArray[np.float64],
    biases: NDArray[np.float64],
    taste: NDArray[np.float64],
    *,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Return a user's records, `(m, 10)`: known items, item in question, whether it was liked."""
    own = taste + generator.normal(scale=0.7, size=_TASTES)
    tried = generator.permutation(len(items))[:RATED]
    chances = 1 / (1 + np.exp(-(2 * items[tried] @ own + biases[tried])))
    liked = generator.random(RATED) < chances
    known = np.flatnonzero(liked)[:KNOWN]
    if len(known) < KNOWN:
        return np.zeros((0, KNOWN + 2), np.int64)
    asked = np.setdiff1d(np.arange(RATED), known)
    history = np.broadcast_to(tried[known], (len(asked), KNOWN))
    return np.column_stack([history, tried[asked], liked[asked]])


def _name_sites(kind: str, sites: int, records: int) -> Category:
    codes = np.repeat(np.arange(sites, dtype=np.int32), records)
    return Category(codes, _make_names(kind, sites))


def _make_names(kind: str, count: int) -> tuple[str, ...]:
    return tuple(f"{kind}-{number:02d}" for number in range(1, count + 1))
