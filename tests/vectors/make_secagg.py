"""Make secagg.json: `python -m tests.vectors.make_secagg > tests/vectors/secagg.json`.

Keys, masks and encodings are computed here a second time, from HMAC, AES and whole numbers alone,
so that the library is checked against another program; the four-site round is the library's own
and pins every byte of it. A vector with "fails" must be refused: the value is the class of the
error, and its reason where it has one.
"""

import hashlib
import hmac
import json
import math
from dataclasses import replace
from fractions import Fraction

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import decode, encode
from fedtrain.secagg.messages import (
    AdvertisementList,
    ShareDelivery,
    SignatureList,
    SurvivorSet,
)
from tests.secagg.federation import Federation, Round

PREFIX = b"fedtrain/secagg/v1/"
LOW_ORDER = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
)


def frame(label, *parts):
    pieces = [PREFIX + label, *parts]
    return b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)


def hkdf(secret, info, length):
    """RFC 5869 with SHA-256 and no salt."""
    key, block, out, count = hmac.digest(bytes(32), secret, "sha256"), b"", b"", 0
    while len(out) < length:
        count += 1
        block = hmac.digest(key, block + info + bytes([count]), "sha256")
        out += block
    return out[:length]


def make_keys():
    vectors = []
    for i in range(3):
        private, peer_private, view = (hashlib.sha256(bytes([i, j])).digest() for j in range(3))
        public = X25519PrivateKey.from_private_bytes(peer_private).public_key().public_bytes_raw()
        secret = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
        vectors.append(
            {
                "private_key": private.hex(),
                "public_key": public.hex(),
                "view": view.hex(),
                "site": f"b{i}",
                "peer": f"a{i}",
                "pair_key": hkdf(
                    secret, frame(b"pair-mask", view, b"a%d" % i, b"b%d" % i), 16
                ).hex(),
                "self_key": hkdf(private, frame(b"self-mask", view, b"b%d" % i), 16).hex(),
                "share_key": hkdf(secret, frame(b"share", view, b"b%d" % i, b"a%d" % i), 32).hex(),
            }
        )
    for key in LOW_ORDER:
        fails = {"public_key": key, "fails": "RefusalError", "reason": "weak-key"}
        vectors.append(
            {k: v for k, v in vectors[0].items() if "_key" not in k or k == "private_key"} | fails
        )
    return vectors


def make_masks():
    vectors = []
    for key, bits, m in ((bytes(16), 32, 5), (bytes(range(16)), 32, 70_000), (b"k" * 16, 16, 9)):
        stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        data = stream.update(bytes(m * bits // 8))
        digest = hashlib.sha256(data).hexdigest()
        row = {"key": key.hex(), "ring_bits": bits, "length": m}
        vectors.append(row | {"first": data[:16].hex(), "sha256": digest})
    vectors += [
        {"key": bytes(size).hex(), "ring_bits": 32, "length": 4, "fails": "ValueError"}
        for size in (0, 15, 17)
    ]
    return vectors


def encode_exactly(values, bound, cohort, ring_bits, seed):
    """Encode one real block with whole numbers and fractions only."""
    power = 64
    while cohort * math.ceil(Fraction(bound) * Fraction(2) ** power) >= 2 ** (ring_bits - 1):
        power -= 1
    draws = SecureGenerator.from_seed(seed, "rounding").draw_bytes(4 * len(values)).tobytes()
    words = []
    for i, value in enumerate(values):
        scaled = Fraction(value) * Fraction(2) ** power
        uniform = Fraction(int.from_bytes(draws[4 * i : 4 * i + 4], "little"), 2**32)
        words.append((math.floor(scaled) + (uniform < scaled - math.floor(scaled))) % 2**32)
    width = 2 if ring_bits <= 16 else 4
    return b"".join((word % 256**width).to_bytes(width, "little") for word in words), power


def make_encodings():
    vectors = []
    values = [0.0, 0.1, -0.1, 1.0, -1.0, 1e-9, 0.3333333432674408, -0.9999999403953552]
    for bound, cohort, bits in ((1.0, 3, 32), (1.0, 100, 32), (7.5, 10, 24), (1.0, 1000, 16)):
        row = {"values": values, "bound": bound, "cohort": cohort, "ring_bits": bits, "seed": 1}
        words, power = encode_exactly(values, bound, cohort, bits, 1)
        vectors.append(row | {"scale_bits": power, "words": words.hex()})
    base = {"bound": 1.0, "cohort": 3, "ring_bits": 32, "seed": 1}
    fails = [
        ({"values": [1.5]}, "UpdateRangeError"),
        ({"values": [0.0, -1.0000001]}, "UpdateRangeError"),
        ({"values": ["nan"]}, "DataError"),
        ({"values": ["-inf"]}, "DataError"),
        ({"values": [0.0], "cohort": 2**31}, "ConfigError"),
        ({"values": [0.0], "ring_bits": 33}, "ConfigError"),
    ]
    return vectors + [base | row | {"fails": name} for row, name in fails]


def make_bytes():
    """Bytes that no reader may accept as a SurvivorSet, and two that it must."""
    good = [encode(SurvivorSet(())), encode(SurvivorSet(("a", "b")))]
    bad = [
        *("", "93", "9301", "930109", "9301099", "93010991a1", "930209 90", "930108 90"),
        *("940109 9000", "930109 9000", "930109 80", "930109 91a0", "930109 91a1ff"),
        *("930109 91d90161", "930109 91c40161", "dc0003010990", "930109ddffffffff"),
        *("930109dc2711", "9301cc0990", "de000301 0990"),
    ]
    bad = [text.replace(" ", "") for text in bad if len(text.replace(" ", "")) % 2 == 0]
    return [{"bytes": one.hex()} for one in good] + [
        {"bytes": one, "fails": "MessageError"} for one in bad
    ]


def make_round():
    """Every byte of a round of four sites, the last of which drops out before masking."""
    federation = Federation(4)
    context = federation.make_context(length=8)
    attempt = Round(federation, context, {"mask": ["site-003"]})
    spied = {name: {} for name in ("advertise", "share_keys", "mask", "sign_survivors", "unmask")}
    for site, session in attempt.sessions.items():
        for name, seen in spied.items():
            spy(session, name, seen, site)
    total = attempt.run()
    return {
        "roster": encode(federation.roster).hex(),
        "context": encode(context).hex(),
        "plain": {site: vector.tobytes().hex() for site, vector in attempt.plain.items()},
        **spied,
        "advertisements": encode(attempt.listed).hex(),
        "deliveries": {site: encode(one).hex() for site, one in attempt.deliveries.items()},
        "survivors": encode(attempt.survivors).hex(),
        "signatures": encode(attempt.signatures).hex(),
        "sum": total.tobytes().hex(),
        "transcript": attempt.coordinator.transcript.to_record(),
    }


def spy(session, name, seen, site):
    step = getattr(session, name)

    def noting(*args, **options):
        answer = step(*args, **options)
        seen[site] = encode(answer).hex()
        return answer

    setattr(session, name, noting)


def make_refusals(done):
    """What site-001 of the round must refuse: the step, the message given, the reason."""
    listed = decode(bytes.fromhex(done["advertisements"]), AdvertisementList)
    ads = listed.advertisements
    delivery = decode(bytes.fromhex(done["deliveries"]["site-001"]), ShareDelivery)
    signed = decode(bytes.fromhex(done["signatures"]), SignatureList).signatures
    other = decode(bytes.fromhex(done["deliveries"]["site-002"]), ShareDelivery).packets
    packets = delivery.packets
    sets = {
        "share_keys": [
            (AdvertisementList(ads[:2]), "cohort"),
            (AdvertisementList((ads[0], *ads[2:])), "own-entry"),
            (AdvertisementList((ads[0], *ads)), "duplicate"),
            (AdvertisementList((*ads[:3], replace(ads[3], site="site-009"))), "unknown-site"),
            (AdvertisementList((*ads[:3], replace(ads[3], mask_key=bytes(32)))), "signature"),
        ],
        "mask": [
            (replace(delivery, senders=delivery.senders[:2]), "cohort"),
            (replace(delivery, senders=("site-000", "site-002", "site-003")), "own-entry"),
            (replace(delivery, packets=packets[1:]), "recipients"),
            (replace(delivery, packets=(replace(other[0]), *packets[1:])), "share"),
            (
                replace(
                    delivery, packets=(replace(packets[0], ciphertext=bytes(80)), *packets[1:])
                ),
                "share",
            ),
        ],
        "sign_survivors": [
            (SurvivorSet(("site-000", "site-001")), "cohort"),
            (SurvivorSet(("site-000", "site-002", "site-003")), "own-entry"),
            (SurvivorSet(("site-000", "site-001", "site-002", "zone")), "unknown-site"),
        ],
        "unmask": [
            (SignatureList(signed[:2]), "quorum"),
            (SignatureList((*signed[:2], replace(signed[2], signature=bytes(64)))), "signature"),
            (SignatureList((signed[0], *signed)), "duplicate"),
        ],
    }
    return [
        {"step": step, "message": encode(one).hex(), "fails": "RefusalError", "reason": reason}
        for step, cases in sets.items()
        for one, reason in cases
    ]


def make_vectors():
    done = make_round()
    return {
        "keys": make_keys(),
        "masks": make_masks(),
        "encodings": make_encodings(),
        "bytes": make_bytes(),
        "round": done,
        "refusals": make_refusals(done),
    }


if __name__ == "__main__":
    print(json.dumps(make_vectors(), indent=1))
