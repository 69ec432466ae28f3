"""The sparse graph: its parameters keep their failure probability, also when tried out."""

from dataclasses import replace

import networkx
import numpy as np
import pytest
from scipy import stats

from fedtrain.errors import ConfigError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import RefusalError, SiteSession, encode
from fedtrain.secagg.graph import Graph, GraphPlan, compute_probability, draw_ring, plan_graph
from fedtrain.secagg.messages import SiteRecord, SurvivorSet
from fedtrain.secagg.store import MASKED
from tests.secagg.federation import Federation, name_sites

SMALL = {"dropout_share": 0.15, "corrupt_share": 0.15, "failure_bits": 5, "complete_up_to": 20}


def test_graph_is_complete_up_to_two_hundred_sites():
    assert plan_graph(200) == GraphPlan()
    assert plan_graph(201).neighbours == 74
    sites = name_sites(5)
    graph = Graph(sites, GraphPlan(), seed=bytes(32))
    assert graph.list_neighbours("site-002") == (sites[0], sites[1], sites[3], sites[4])


def test_neighbours_grow_slowly_with_sites():
    degrees = [plan_graph(n).neighbours for n in (300, 1000, 10_000)]
    assert degrees == [90, 114, 134]


def test_graph_is_complete_where_no_sparse_one_is_good_enough():
    assert plan_graph(201, dropout_share=0.4, corrupt_share=0.4) == GraphPlan()


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ConfigError, match="must not be"):
        plan_graph(300, dropout_share=shares[0], corrupt_share=shares[1])


@pytest.mark.parametrize(
    ("n", "marked", "drawn"), [(20, 5, 8), (300, 30, 90), (10, 9, 9), (9, 0, 3)]
)
def test_probabilities_are_hypergeometric(n, marked, drawn):
    ours = [compute_probability(n, marked, drawn, count) for count in range(drawn + 1)]
    np.testing.assert_allclose(
        ours, stats.hypergeom(n, marked, drawn).pmf(range(drawn + 1)), atol=1e-12
    )


@pytest.mark.parametrize("n", [201, 500, 2000])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.1])
def test_plan_meets_the_four_bounds(n, share):
    plan = plan_graph(n, dropout_share=share, corrupt_share=share)
    k, half, marked = plan.neighbours, plan.neighbours // 2, int(share * n)
    around, window = stats.hypergeom(n - 1, marked, k), stats.hypergeom(n, marked, half)
    failures = (
        around.sf(plan.threshold - 1),
        window.sf(plan.window_survivors - 1),
        around.sf(k - plan.threshold),
        window.sf(half - plan.window_survivors),
    )
    assert n * sum(failures[:2]) <= 2.0**-40 * 1.001
    assert n * sum(failures[2:]) <= 2.0**-40 * 1.001


def test_neighbourhoods_are_mutual_and_have_k_sites():
    sites = name_sites(101)
    graph = Graph(sites, GraphPlan(12, 5, 3), seed=bytes(32))
    rows = {site: graph.list_neighbours(site) for site in sites}
    assert all(len(set(row)) == 12 and site not in row for site, row in rows.items())
    assert all(site in rows[other] for site, row in rows.items() for other in row)


def test_graph_of_few_advertised_sites_is_complete():
    graph = Graph(name_sites(5), GraphPlan(4, 2, 1), seed=bytes(32))
    assert len(graph.list_neighbours("site-000")) == 4
    graph = Graph(name_sites(4), GraphPlan(6, 2, 1), seed=bytes(32))
    assert len(graph.list_neighbours("site-000")) == 3


def test_ring_is_drawn_from_its_seed():
    sites = name_sites(50)
    assert draw_ring(sites, b"a" * 32) == draw_ring(sites, b"a" * 32)
    assert draw_ring(sites, b"a" * 32) != draw_ring(sites, b"b" * 32)
    assert sorted(draw_ring(sites, b"a" * 32)) == list(sites)


def simulate_failures(n, plan, *, trials, rng):
    """Share of random graphs that are insecure, and that are void, of n sites."""
    sites, half = name_sites(n), plan.neighbours // 2
    insecure = void = 0
    for trial in range(trials):
        graph = Graph(sites, plan, seed=trial.to_bytes(32, "big"))
        order = rng.permutation(n)
        corrupt = {sites[i] for i in order[: int(SMALL["corrupt_share"] * n)]}
        order = rng.permutation(n)
        dropped = {sites[i] for i in order[: int(SMALL["dropout_share"] * n)]}
        rows = {site: graph.list_neighbours(site) for site in sites}
        insecure += any(len(corrupt.intersection(row)) >= plan.threshold for row in rows.values())
        alive = frozenset(sites) - dropped
        short = any(len(alive.intersection(row)) < plan.threshold for row in rows.values())
        void += short or graph.count_fewest_survivors(alive) < plan.window_survivors
        assert half
    return insecure / trials, void / trials


@pytest.mark.slow
def test_simulated_failures_stay_below_the_bound_and_smaller_graphs_exceed_it():
    plan = plan_graph(60, **SMALL)
    assert plan.neighbours
    rng = np.random.default_rng(0)
    bound = 2.0 ** -SMALL["failure_bits"]
    insecure, void = simulate_failures(60, plan, trials=300, rng=rng)
    assert insecure <= bound + 3 * np.sqrt(bound / 300)
    assert void <= bound + 3 * np.sqrt(bound / 300)
    weak = replace(plan, neighbours=plan.neighbours // 2, threshold=plan.threshold // 2)
    insecure, _ = simulate_failures(60, weak, trials=100, rng=rng)
    assert insecure > bound


def test_honest_survivors_stay_connected_whatever_the_coordinator_drops():
    """Any drop that leaves each window its survivors leaves the honest ones one component."""
    plan, sites = plan_graph(60, **SMALL), name_sites(60)
    rng = np.random.default_rng(1)
    graph = Graph(sites, plan, seed=bytes(32))
    corrupt = {sites[i] for i in rng.permutation(60)[:9]}
    full = networkx.Graph((a, b) for a in sites for b in graph.list_neighbours(a))
    accepted = 0
    for _ in range(200):
        alive = frozenset(site for site in sites if rng.random() < 0.8)
        if graph.count_fewest_survivors(alive) >= plan.window_survivors:
            accepted += 1
            assert networkx.is_connected(full.subgraph(alive - corrupt))
    assert accepted > 20


def test_survivor_set_that_isolates_a_site_is_refused():
    federation, victim = Federation(204), "site-000"
    context = federation.make_context()
    plan, seed = plan_graph(204), bytes(32)
    sites = federation.sites
    record = SiteRecord(context, MASKED, sites, seed, sites, (), (), b"")
    around = Graph(sites, plan, seed=seed).list_neighbours(victim)[:60]
    with pytest.raises(RefusalError) as caught:
        restore(federation, victim, record).sign_survivors(
            SurvivorSet(tuple(site for site in sites if site not in around))
        )
    assert caught.value.reason == "graph"
    restore(federation, victim, record).sign_survivors(SurvivorSet(sites[:190]))


def restore(federation, site, record):
    federation.stores[site].save(record.context.run, encode(record))
    return SiteSession.restore(
        encode(record),
        site,
        identity=federation.identities[site],
        policy=federation.policy,
        store=federation.stores[site],
        generator=SecureGenerator.from_system(),
    )
