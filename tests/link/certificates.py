"""Keys and certificates that a root would not issue, made with its own authority."""

import time
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedtrain.membership.certificates import get_public_bytes, issue_certificate, load_key
from fedtrain.membership.requests import sign_claim
from fedtrain.secagg.files import load_identity


def make_key():
    """Return a fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def renew(request, folder):
    """Return a member's request with a fresh TLS key, which is not kept."""
    key = make_key()
    claim = replace(request.claim, tls_public_key=get_public_bytes(key))
    return sign_claim(claim, load_identity(folder / "identity.key"), tls_key=key)


def issue(deployment, uri, key, *, address=None, now=None, days=10, ca_key=None):
    """Return any certificate of a federation's authority."""
    data = issue_certificate(
        deployment.membership.membership.ca_certificate,
        ca_key or load_key(deployment.root / "ca.key"),
        uri=uri,
        public_bytes=get_public_bytes(key),
        address=address,
        now=int(time.time()) if now is None else now,
        days=days,
    )
    return x509.load_der_x509_certificate(data)
