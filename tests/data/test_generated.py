"""Made-up data: what the stated process says of it, and that it is always the same."""

import numpy as np
import pytest

from fedtrain.config import build_config
from fedtrain.data.generated import (
    GRAPH_KINDS,
    ITEMS,
    KNOWN,
    NODES,
    generate_graphs,
    generate_ratings,
)
from fedtrain.data.shards import Shards


@pytest.fixture(scope="module")
def graphs():
    return generate_graphs()


@pytest.fixture(scope="module")
def ratings():
    return generate_ratings()


def test_graphs_are_the_same_each_time(graphs):
    assert np.array_equal(graphs.features, generate_graphs().features)


def test_edges_go_both_ways_and_never_to_nodes_that_are_not_there(graphs):
    weights, features = graphs.features[..., :NODES], graphs.features[..., NODES:]
    assert np.array_equal(weights, weights.transpose(0, 2, 1))
    absent = features.sum(2) == 0
    assert not weights[absent].any()
    assert not weights[:, np.arange(NODES), np.arange(NODES)].any()


def test_kind_of_a_graph_is_the_share_of_edges_within_a_type(graphs):
    weights, features = graphs.features[..., :NODES], graphs.features[..., NODES:]
    within = np.einsum("nij,nif,njf->n", weights, features, features)
    shares = within / weights.sum((1, 2))
    means = [shares[graphs.labels.codes == kind].mean() for kind in range(len(GRAPH_KINDS))]
    assert means[0] > 0.9
    assert means[1] < 0.1
    assert means[2] == pytest.approx(0.5, abs=0.07)  # a node is not joined to itself


def test_item_in_question_is_none_of_the_known(ratings):
    known, asked = ratings.features[:, :KNOWN], ratings.features[:, KNOWN:]
    assert not (known == asked).any()
    assert ratings.features.max() < ITEMS


def test_records_of_a_user_share_what_is_known_of_them(ratings):
    for person in range(5):
        assert len(np.unique(ratings.features[ratings.persons == person][:, :KNOWN], axis=0)) == 1


@pytest.mark.parametrize(
    "source", ["generated:graphs", "generated:ratings", "generated:many_ratings"]
)
def test_generated_source_opens_by_its_natural_sites(source):
    config = build_config({"data": {"source": source}, "partition": {"scheme": "natural"}})
    assert len(Shards.open(config)) >= 12
