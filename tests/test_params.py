import hashlib

import numpy as np
import pytest
from torch import nn

from fedtrain.errors import PeerError
from fedtrain.params import Layout, ModelState, compute_vector_digest


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_state_reads_back_what_was_written():
    model = make_model()
    state = ModelState(model)
    vector = np.arange(state.layout.size, dtype=np.float32)
    state.write(vector)
    np.testing.assert_array_equal(state.read(), vector)
    assert model[0].weight.detach().reshape(-1).tolist() == list(range(6))


def test_state_holds_parameters_and_float_buffers_but_no_counters():
    names = Layout.of(make_model()).names
    assert names == ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")


def test_state_read_is_a_copy():
    state = ModelState(make_model())
    before = state.read()
    before += 1
    assert not np.array_equal(before, state.read())


@pytest.mark.parametrize("size", [0, 15, 17])
def test_state_refuses_a_vector_of_another_length(size):
    with pytest.raises(PeerError, match="different models"):
        ModelState(make_model()).write(np.zeros(size, np.float32))


def test_layout_splits_into_named_views():
    layout = Layout(("a", "b"), ((2, 3), ()))
    vector = np.arange(7, dtype=np.float32)
    parts = layout.split(vector)
    assert parts["a"].shape == (2, 3)
    assert parts["b"] == 6
    parts["a"][0, 0] = 9
    assert vector[0] == 9


def test_digest_is_of_little_endian_float32_bytes():
    vector = np.array([1.5, -2.0], np.float32)
    assert (
        compute_vector_digest(vector) == hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest()
    )
    assert compute_vector_digest(vector.astype(">f4")) == compute_vector_digest(vector)


def test_state_of_a_model_without_parameters_is_empty():
    assert ModelState(nn.ReLU()).read().shape == (0,)
