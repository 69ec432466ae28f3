"""The golden vectors of tests/vectors/secagg.json, most of which must be refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from fedtrain.errors import ConfigError, DataError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import Block, RefusalError, UpdateRangeError, VectorEncoding, decode, encode
from fedtrain.secagg.encoding import get_word_type
from fedtrain.secagg.faults import MessageError
from fedtrain.secagg.keys import (
    agree,
    derive_pair_key,
    derive_self_key,
    derive_share_key,
    load_private_key,
)
from fedtrain.secagg.masks import add_masks
from fedtrain.secagg.messages import AdvertisementList, ShareDelivery, SignatureList, SurvivorSet
from tests.secagg.federation import Federation, Round
from tests.vectors.make_secagg import make_vectors

PATH = Path(__file__).parents[1] / "vectors" / "secagg.json"
VECTORS = json.loads(PATH.read_text())
ERRORS = {
    one.__name__: one
    for one in (RefusalError, UpdateRangeError, MessageError, DataError, ConfigError, ValueError)
}
ASKED = {
    "share_keys": AdvertisementList,
    "mask": ShareDelivery,
    "sign_survivors": SurvivorSet,
    "unmask": SignatureList,
}


def run(vector, compute):
    """Return the result, or check that the vector's error is raised and return None."""
    if "fails" not in vector:
        return compute()
    with pytest.raises(ERRORS[vector["fails"]]) as caught:
        compute()
    assert caught.type is ERRORS[vector["fails"]]
    assert getattr(caught.value, "reason", None) == vector.get("reason")
    return None


def test_generator_gives_these_vectors():
    assert json.loads(json.dumps(make_vectors())) == VECTORS


def test_at_least_half_of_the_vectors_are_negative():
    lists = [one for one in VECTORS.values() if isinstance(one, list)]
    fails = ["fails" in vector for one in lists for vector in one]
    assert sum(fails) >= len(fails) / 2


@pytest.mark.parametrize("vector", VECTORS["keys"])
def test_keys(vector):
    private, public, view = (
        bytes.fromhex(vector[k]) for k in ("private_key", "public_key", "view")
    )
    names = {"site": vector["site"], "peer": vector["peer"]}
    own = load_private_key(private)
    pair = run(vector, lambda: derive_pair_key(own, public, view=view, **names))
    if pair is None:
        return
    secret = agree(own, public, peer=vector["peer"])
    route = (vector["site"], vector["peer"])
    assert pair.hex() == vector["pair_key"]
    assert derive_self_key(private, view=view, site=vector["site"]).hex() == vector["self_key"]
    assert derive_share_key(secret, transcript=view, route=route).hex() == vector["share_key"]


@pytest.mark.parametrize("vector", VECTORS["masks"])
def test_masks(vector):
    words = np.zeros(vector["length"], get_word_type(vector["ring_bits"]))
    run(vector, lambda: add_masks(words, [bytes.fromhex(vector["key"])]))
    if "fails" not in vector:
        assert words.tobytes()[:16].hex() == vector["first"]
        assert hashlib.sha256(words.tobytes()).hexdigest() == vector["sha256"]


def encode_vector(vector):
    values = np.array([float(value) for value in vector["values"]])
    block = Block("x", len(values), vector["bound"])
    encoding = VectorEncoding((block,), cohort=vector["cohort"], ring_bits=vector["ring_bits"])
    generator = SecureGenerator.from_seed(vector["seed"], "rounding")
    return encoding, encoding.encode({"x": values}, generator=generator)


@pytest.mark.parametrize("vector", VECTORS["encodings"])
def test_encodings(vector):
    result = run(vector, lambda: encode_vector(vector))
    if result:
        encoding, words = result
        assert encoding.scales["x"] == 2.0 ** vector["scale_bits"]
        assert words.tobytes().hex() == vector["words"]


@pytest.mark.parametrize("vector", VECTORS["bytes"])
def test_bytes(vector):
    raw = bytes.fromhex(vector["bytes"])
    message = run(vector, lambda: decode(raw, SurvivorSet))
    assert message is None or encode(message) == raw


@pytest.mark.parametrize("vector", VECTORS["refusals"])
def test_refusals(vector):
    before = {"share_keys": "share", "mask": "mask", "sign_survivors": "sign", "unmask": "unmask"}
    federation = Federation(4)
    context = federation.make_context(length=8)
    attempt = Round(federation, context, {"mask": ["site-003"]}).run_until(before[vector["step"]])
    session, step = attempt.sessions["site-001"], vector["step"]
    asked = decode(bytes.fromhex(vector["message"]), ASKED[step])
    given = (attempt.vectors["site-001"], asked) if step == "mask" else (asked,)
    run(vector, lambda: getattr(session, step)(*given))
