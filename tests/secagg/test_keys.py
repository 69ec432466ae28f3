"""Keys and rosters: one purpose each, bound to what was seen."""

import pytest

from fedtrain.errors import ConfigError
from fedtrain.secagg import Identity, RefusalError, decode, encode, make_roster, sign_roster
from fedtrain.secagg.keys import (
    agree,
    compute_digest,
    compute_public_key,
    derive_pair_key,
    derive_self_key,
    derive_share_key,
    frame,
    load_private_key,
    open_sealed,
    seal,
)
from fedtrain.secagg.messages import Roster, RosterEntry, SignedRoster
from fedtrain.secagg.roster import is_signed, verify_roster

A, B = bytes(range(32)), bytes(range(1, 33))


def pair(own, other, **changes):
    values = {"view": bytes(32), "site": "a", "peer": "b"} | changes
    return derive_pair_key(load_private_key(own), compute_public_key(other), **values)


def test_pair_key_is_equal_at_both_ends():
    assert pair(A, B) == pair(B, A, site="b", peer="a")


@pytest.mark.parametrize("changes", [{"view": b"x" * 32}, {"site": "c"}, {"peer": "c"}])
def test_pair_key_differs_with_all_that_it_is_bound_to(changes):
    assert pair(A, B) != pair(A, B, **changes)


def test_keys_of_different_purposes_differ():
    share = derive_share_key(A, transcript=bytes(32), route=("a", "b"))
    back = derive_share_key(A, transcript=bytes(32), route=("b", "a"))
    own = derive_self_key(A, view=bytes(32), site="a")
    assert len({share, back, own, share[:16], back[:16]}) == 5


def test_frames_of_different_parts_differ():
    frames = {frame("a", b"bc"), frame("a", b"b", b"c"), frame("ab", b"c"), frame("a", b"", b"bc")}
    assert len(frames) == 4
    assert compute_digest("a", "bc") == compute_digest("a", b"bc")


@pytest.mark.parametrize("point", [0, 1])
def test_public_key_of_low_order_is_refused(point):
    with pytest.raises(RefusalError, match="low order") as caught:
        agree(load_private_key(A), point.to_bytes(32, "little"), peer="b")
    assert (caught.value.reason, caught.value.suspect) == ("weak-key", "b")


@pytest.mark.parametrize(
    "changes", [{"transcript": b"x" * 32}, {"route": ("b", "a")}, {"route": ("a", "c")}]
)
def test_sealed_share_opens_on_its_route_only(changes):
    bound = {"transcript": bytes(32), "route": ("a", "b")}
    sealed = seal(A, b"share", **bound)
    assert open_sealed(A, sealed, **bound) == b"share"
    with pytest.raises(RefusalError):
        open_sealed(A, sealed, **bound | changes)


def test_identity_of_a_seed_repeats_and_a_generated_one_does_not():
    assert Identity.from_seed(1, "a").public_key == Identity.from_seed(1, "a").public_key
    assert Identity.from_seed(1, "a").public_key != Identity.from_seed(1, "b").public_key
    assert Identity.generate().public_key != Identity.generate().public_key


def test_identity_is_kept_as_private_bytes_and_does_not_print_them():
    identity = Identity.generate()
    again = Identity(identity.to_private_bytes())
    assert again.public_key == identity.public_key
    assert identity.to_private_bytes().hex() not in repr(identity)
    assert identity.public_key.hex() in repr(identity)


def test_signature_holds_for_its_label_parts_and_key_only():
    identity = Identity.from_seed(0, "a")
    signature = identity.sign("label", b"part")
    assert is_signed(identity.public_key, signature, "label", b"part")
    assert not is_signed(identity.public_key, signature, "other", b"part")
    assert not is_signed(identity.public_key, signature, "label", b"pa", b"rt")
    assert not is_signed(Identity.from_seed(0, "b").public_key, signature, "label", b"part")
    assert not is_signed(b"short", signature, "label", b"part")


def test_roster_survives_its_encoding_and_verifies():
    root = Identity.from_seed(0, "root")
    signed = sign_roster(make_roster("f", 3, keys={"b": B, "a": A}), root)
    assert decode(encode(signed), SignedRoster) == signed
    assert [one.site for one in verify_roster(signed, root.public_key).entries] == ["a", "b"]


@pytest.mark.parametrize(
    "entries",
    [
        (RosterEntry("a", A), RosterEntry("a", B)),
        (RosterEntry("a", A), RosterEntry("b", A)),
        (RosterEntry("b", A), RosterEntry("a", B)),
    ],
)
def test_roster_with_a_site_or_key_twice_is_not_signed(entries):
    with pytest.raises(ConfigError, match="twice or out of order"):
        sign_roster(Roster("f", 1, entries), Identity.from_seed(0, "root"))
