"""What is written down of a round, and that an auditor notices every change to it."""

import hashlib
import json

import pytest

from fedtrain.errors import AuditError
from fedtrain.secagg import Identity, decode, encode, verify_transcript
from fedtrain.secagg.messages import RoundContext, SignatureList
from tests.secagg.federation import ROOT, Federation, Round


@pytest.fixture(scope="module")
def attempt():
    federation = Federation(6)
    attempt = Round(federation, federation.make_context(), {"mask": ["site-005"]})
    attempt.total = attempt.run()
    return attempt


def check(attempt, record, root=ROOT.public_key, **options):
    return verify_transcript(
        json.loads(json.dumps(record)), attempt.federation.roster, root, **options
    )


def test_record_of_a_round_verifies(attempt):
    record = attempt.coordinator.transcript.to_record()
    digest = hashlib.sha256(attempt.total.tobytes()).digest()
    assert check(attempt, record, total_digest=digest) == attempt.context
    assert decode(bytes.fromhex(record["context"]), RoundContext) == attempt.context


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "sign", "unmask"])
def test_record_of_a_void_round_verifies(stage):
    federation = Federation(4)
    attempt = Round(federation, federation.make_context(), {stage: federation.sites[:2]})
    assert attempt.run() is None
    record = attempt.coordinator.transcript.to_record()
    assert "sum" not in record
    check(attempt, record)


def test_record_holds_no_vector_share_or_key(attempt):
    text = json.dumps(attempt.coordinator.transcript.to_record())
    for site in attempt.survivors.survivors:
        assert attempt.plain[site].tobytes().hex() not in text
        assert attempt.vectors[site].tobytes().hex() not in text


def flip(text, at=-1):
    """Flip one bit of hexadecimal text."""
    raw = bytearray.fromhex(text)
    raw[at] ^= 1
    return raw.hex()


CHANGES = {
    "context": lambda r: r | {"context": flip(r["context"], 40)},
    "advertisement": lambda r: r | {"advertisements": flip(r["advertisements"])},
    "sender left out": lambda r: r | {"senders": r["senders"][:-1]},
    "sender added": lambda r: r | {"senders": [*r["senders"], "zone"]},
    "senders below the threshold": lambda r: r | {"senders": r["senders"][:2]},
    "vector digest": lambda r: (
        r
        | {
            "vectors": r["vectors"]
            | {
                "site-000": [
                    flip(v) if i == 0 else v for i, v in enumerate(r["vectors"]["site-000"])
                ]
            }
        }
    ),
    "vector of a stranger": lambda r: (
        r | {"vectors": r["vectors"] | {"zone": r["vectors"]["site-000"]}}
    ),
    "survivor left out": lambda r: (
        r
        | {
            "survivors": r["survivors"][1:],
            "vectors": {s: v for s, v in r["vectors"].items() if s != "site-000"},
        }
    ),
    "survivor without vector": lambda r: r | {"vectors": {}},
    "signature": lambda r: r | {"signatures": flip(r["signatures"])},
    "no advertisements": lambda r: {k: v for k, v in r.items() if k != "advertisements"},
    "no vectors": lambda r: {k: v for k, v in r.items() if k != "vectors"},
    "no signatures": lambda r: {k: v for k, v in r.items() if k != "signatures"},
    "no context": lambda r: {k: v for k, v in r.items() if k != "context"},
    "neither sum nor void": lambda r: {k: v for k, v in r.items() if k != "sum"},
    "sum and void": lambda r: r | {"void": "too-few-sites"},
    "unknown reason": lambda r: {k: v for k, v in r.items() if k != "sum"} | {"void": "rain"},
    "unknown field": lambda r: r | {"note": 1},
    "no hexadecimal": lambda r: r | {"signatures": "zz"},
    "no text": lambda r: r | {"signatures": 1},
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_record_is_refused(attempt, change):
    record = CHANGES[change](attempt.coordinator.transcript.to_record())
    with pytest.raises(AuditError, match="transcript"):
        check(attempt, record)


def test_other_sum_is_refused(attempt):
    record = attempt.coordinator.transcript.to_record()
    with pytest.raises(AuditError, match="not the one that was written down"):
        check(attempt, record, total_digest=bytes(32))


def test_other_root_or_roster_is_refused(attempt):
    record = attempt.coordinator.transcript.to_record()
    with pytest.raises(AuditError, match="not signed by the pinned root"):
        check(attempt, record, Identity.from_seed(9, "root").public_key)
    other = Federation(6, seed=5).roster
    with pytest.raises(AuditError, match="another roster"):
        verify_transcript(record, other, ROOT.public_key)


def test_threshold_of_half_is_refused(attempt):
    record = attempt.coordinator.transcript.to_record()
    context = attempt.federation.make_context(threshold=3)
    with pytest.raises(AuditError, match="above half"):
        check(attempt, record | {"context": encode(context).hex()})


def test_too_few_signatures_are_refused(attempt):
    record = attempt.coordinator.transcript.to_record()
    listed = decode(bytes.fromhex(record["signatures"]), SignatureList)
    few = encode(SignatureList(listed.signatures[:4])).hex()
    with pytest.raises(AuditError, match="4 signatures are below the threshold 5"):
        check(attempt, record | {"signatures": few})
