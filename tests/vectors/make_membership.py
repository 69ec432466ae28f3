"""Make membership.json: `python -m tests.vectors.make_membership > tests/vectors/membership.json`.

Records are packed and signed here a second time, with msgpack, hashlib and cryptography alone, so
that the library is checked against another program; what the root would never sign is signed here.
A vector with "fails" must be refused: the value is the reason of the error. Kinds: a request, a
membership, a newer membership beside a pinned one, a kit for the site whose keys are given.
"""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import msgpack
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

PREFIX = "fedtrain/secagg/v1/"
NOW = 1_800_000_000
VERSION = 1


def make_identity(name):
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def make_tls_key(name):
    number = int.from_bytes(hashlib.sha256(f"tls {name}".encode()).digest()[:31], "big")
    return ec.derive_private_key(number, ec.SECP256R1())


def get_public(name):
    return make_identity(name).public_key().public_bytes_raw()


def get_spki(name):
    public = make_tls_key(name).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def frame(label, *parts):
    pieces = [(PREFIX + label).encode(), *parts]
    return b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)


def pack(tag, fields):
    return msgpack.packb([VERSION, tag, *fields])


def sign(name, label, content):
    return make_identity(name).sign(frame(label, content))


# Requests.


def make_request(name="ward", role="site", address=(), *, identity="ward", tls="ward", **changes):
    spki = changes.get("spki", get_spki(tls))
    claim = [name, role, list(address), get_public(identity), spki]
    content = pack(32, claim)
    signature = sign(changes.get("signer", identity), "join-request", content)
    signed = frame("join-request-tls", content)
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    tls_signature = make_tls_key(changes.get("tls_signer", tls)).sign(signed, algorithm)
    shown = changes.get("shown_name", name)
    return pack(33, [[shown, *claim[1:]], signature, tls_signature])


def list_requests():
    good = make_request()
    address = ("train.example.org:7443",)
    spki = bytearray(get_spki("ward"))
    spki[-1] ^= 1  # no point of the curve
    yield "a site's request", good, None
    yield "a coordinator's", make_request("co", "coordinator", address, identity="co"), None
    yield "an auditor's", make_request("eve", "auditor", identity="eve", tls="eve"), None
    yield "name changed after signing", make_request(shown_name="warp"), "signature"
    yield "signed by another identity", make_request(signer="eve"), "signature"
    yield "signed by another TLS key", make_request(tls_signer="eve"), "signature"
    yield "byte behind it", good + b"\0", "encoding"
    yield "cut off", good[:-1], "encoding"
    yield "empty", b"", "encoding"
    yield (
        "not in its shortest form",
        b"\xdc\x00" + good[:1].replace(b"\x95", b"\x05") + good[1:],
        ("encoding"),
    )
    yield "unknown role", make_request(role="root"), "encoding"
    yield "a site with an address", make_request(address=address), "encoding"
    yield "a coordinator without", make_request(role="coordinator"), "encoding"
    yield "address without a port", make_request("co", "coordinator", ("host",)), "encoding"
    yield "name that leaves its folder", make_request("../ward"), "encoding"
    yield "name that looks like another's URI", make_request("ward/x"), "encoding"
    yield "TLS key that is no point", make_request(spki=bytes(spki)), "encoding"


# Memberships.


def make_entry(name, role="site", *, identity=None, tls=None):
    digest = hashlib.sha256(get_spki(tls or name)).digest()
    return [name, role, get_public(identity or name), digest]


ENTRIES = [
    make_entry("alpha"),
    make_entry("boss", "admin"),
    make_entry("co", "coordinator"),
    make_entry("ward"),
]


def make_roster(entries, *, federation="heart", version=5, root="root"):
    sites = [[entry[0], entry[2]] for entry in entries if entry[1] == "site"]
    roster = [federation, version, sites]
    return [roster, sign(root, "roster", pack(1, roster))]


def make_membership(entries=None, *, root="root", **changes):
    entries = ENTRIES if entries is None else entries
    federation, version = changes.get("federation", "heart"), changes.get("version", 5)
    roster = changes.get("roster", make_roster(entries, federation=federation, version=version))
    fields = [
        federation,
        version,
        changes.get("issued", NOW - 100),
        entries,
        changes.get("ca", CA),
        changes.get("coordinator", "train.example.org:7443"),
        roster,
    ]
    return [fields, sign(root, "membership", pack(34, fields))]


def list_memberships():
    good = make_membership()
    sites = [entry for entry in ENTRIES if entry[1] == "site"]
    yield "four members", good, None
    yield "nobody", make_membership([]), None
    yield "another root", make_membership(root="eve"), "signature"
    yield "signature of zeros", [good[0], bytes(64)], "signature"
    yield "version changed after signing", [[*good[0][:1], 6, *good[0][2:]], good[1]], "signature"
    yield (
        "member added after signing",
        [[*good[0][:3], [*ENTRIES, make_entry("x")], *good[0][4:]], good[1]],
        "signature",
    )
    yield "out of order", make_membership(ENTRIES[::-1], roster=make_roster(sites)), "content"
    for what, entry in (
        ("name twice", make_entry("ward", identity="x", tls="x")),
        ("name twice but for case", make_entry("Ward", identity="x", tls="x")),
        ("identity twice", make_entry("x", "auditor", identity="ward")),
        ("TLS key twice", make_entry("x", "auditor", tls="ward")),
        ("unknown role", make_entry("x", "root")),
        ("second coordinator", make_entry("x", "coordinator")),
        ("name that leaves its folder", make_entry("../x")),
    ):
        entries = sorted([*ENTRIES, entry])
        roster = make_roster([one for one in entries if one[0] != "Ward"])
        yield what, make_membership(entries, roster=roster), "content"
    for what, roster in (
        ("roster of another version", make_roster(ENTRIES, version=4)),
        ("roster of another federation", make_roster(ENTRIES, federation="lung")),
        ("roster of another root", make_roster(ENTRIES, root="eve")),
        ("roster without a site", make_roster(ENTRIES[1:])),
        ("roster with an admin", make_roster([*sites, make_entry("zed")])),
        ("roster with another key", make_roster([make_entry("alpha", identity="eve"), *sites[1:]])),
    ):
        yield what, make_membership(roster=roster), "content"
    yield "no address", make_membership(coordinator="nowhere"), "content"
    yield "no name of a federation", make_membership(federation="he/art"), "content"


def list_newer():
    yield "newer by one", make_membership(version=6), None
    yield "newer by many, member struck off", make_membership(ENTRIES[:-1], version=90), None
    yield "older", make_membership(version=4), "older"
    yield "the same", make_membership(), "older"
    yield "the same version, another content", make_membership(issued=NOW), "conflict"
    yield "another federation", make_membership(version=6, federation="lung"), "federation"
    yield "another authority", make_membership(version=6, ca=make_ca("eve")), "federation"
    yield "another root", make_membership(version=6, root="eve"), "signature"


# Certificates and kits.


def make_name(text):
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def make_ca(name, *, is_ca=True):
    key = make_tls_key(name)
    builder = begin_certificate("CA", "CA", key.public_key(), days=3652)
    builder = builder.add_extension(x509.BasicConstraints(is_ca, 0), critical=True)
    return finish_certificate(builder, key)


def begin_certificate(subject, issuer, public, *, begin=NOW - 3600, days=397):
    start = datetime.fromtimestamp(begin, UTC)
    builder = x509.CertificateBuilder().subject_name(make_name(subject)).public_key(public)
    builder = builder.issuer_name(make_name(issuer)).serial_number(1 + begin)
    return builder.not_valid_before(start).not_valid_after(start + timedelta(days=days))


def finish_certificate(builder, key):
    signed = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(Encoding.DER)


def make_certificate(uris=("fedtrain:heart/site/ward",), *, issuer="ca", tls="ward", **changes):
    builder = begin_certificate(
        "ward",
        changes.get("issuer_name", "CA"),
        make_tls_key(tls).public_key(),
        begin=changes.get("begin", NOW - 3600),
    )
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    names += [x509.DNSName(host) for host in changes.get("hosts", ())]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    usages = x509.ExtendedKeyUsage(changes.get("usages", [Usage.CLIENT_AUTH]))
    builder = builder.add_extension(usages, critical=False)
    return finish_certificate(builder, make_tls_key(issuer))


def make_kit(certificate=None, *, root="root", membership=None):
    certificate = make_certificate() if certificate is None else certificate
    signed = make_membership(root=root) if membership is None else membership
    return [get_public(root), signed, certificate]


def replace_ward(*entry):
    return make_kit(membership=make_membership([*ENTRIES[:-1], *entry]))


def list_kits():
    wrong = {
        "of another authority": {"issuer": "eve"},
        "of another authority's name": {"issuer_name": "other CA"},
        "signed by the member itself": {"issuer": "ward"},
        "for another TLS key": {"tls": "eve"},
        "for another member": {"uris": ("fedtrain:heart/site/alpha",)},
        "for another role": {"uris": ("fedtrain:heart/admin/ward",)},
        "for another federation": {"uris": ("fedtrain:lung/site/ward",)},
        "for two members": {"uris": ("fedtrain:heart/site/ward", "fedtrain:heart/site/alpha")},
        "for nobody": {"uris": ()},
        "for a host alone": {"uris": (), "hosts": ("train.example.org",)},
        "that may serve": {"usages": [Usage.SERVER_AUTH]},
        "that may dial and serve": {"usages": [Usage.CLIENT_AUTH, Usage.SERVER_AUTH]},
        "that has ended": {"begin": NOW - 398 * 86_400},
        "that has not begun": {"begin": NOW + 60},
    }
    yield "the site's own", make_kit(), None
    yield "another root's, signed by it", make_kit(root="eve"), "root"
    yield "another root's key beside it", [get_public("eve"), make_membership(), b"x"], "root"
    yield (
        "membership of another root",
        make_kit(membership=make_membership(root="eve")),
        ("signature"),
    )
    yield "without the member", replace_ward(), "not-member"
    yield "in another role", replace_ward(make_entry("ward", "admin")), "not-member"
    yield "for another identity", replace_ward(make_entry("ward", identity="eve")), "own-key"
    yield "for another TLS key", replace_ward(make_entry("ward", tls="eve")), "own-key"
    for what, changes in wrong.items():
        yield f"certificate {what}", make_kit(make_certificate(**changes)), "certificate"
    yield "certificate that is none", make_kit(b"\x30\x03\x02\x01\x00"), "certificate"
    yield "certificate that is empty", make_kit(b""), "certificate"


CA = make_ca("ca")


def list_damaged(data):
    yield "byte behind it", data + b"\0"
    yield "cut off", data[:-1]
    yield "of another kind", data[:2] + b"\x20" + data[3:]
    yield "of another version", data[:1] + b"\x02" + data[2:]


def list_vectors():
    for name, data, fails in list_requests():
        yield "request", name, data, fails
    for name, fields, fails in list_memberships():
        yield "membership", name, pack(35, fields), fails
    for name, data in list_damaged(pack(35, make_membership())):
        yield "membership", name, data, "encoding"
    for name, fields, fails in list_newer():
        yield "newer", name, pack(35, fields), fails
    for name, fields, fails in list_kits():
        yield "kit", name, pack(36, fields), fails
    for name, data in list_damaged(pack(36, make_kit())):
        yield "kit", name, data, "encoding"


def make_tree():
    site = make_tls_key("ward").private_numbers().private_value
    return {
        "now": NOW,
        "root_public_key": get_public("root").hex(),
        "pinned": pack(35, make_membership()).hex(),
        "site": {
            "name": "ward",
            "identity": make_identity("ward").private_bytes_raw().hex(),
            "tls_key": f"{site:064x}",
        },
        "fingerprint": hashlib.sha256(
            frame("join-fingerprint", pack(32, msgpack.unpackb(make_request())[2]))
        ).hexdigest()[:40],
        "vectors": [
            {"kind": kind, "name": name, "data": data.hex()} | ({"fails": fails} if fails else {})
            for kind, name, data, fails in list_vectors()
        ],
    }


if __name__ == "__main__":
    print(json.dumps(make_tree(), indent=1))
