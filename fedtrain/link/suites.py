"""TLS 1.3 only, in a gRPC that has no option for it.

Certificates of a federation have ECDSA keys. The one cipher suite that TLS 1.2 is left with needs
an RSA key, so that no handshake of TLS 1.2 finds a suite; TLS 1.3 has suites of its own. gRPC reads
the setting when it is loaded, once, and only from the environment of its process.

References:
    RFC 5289, section 3 (the suite), RFC 8446, section 4.1.2 and appendix B.4 (suites of TLS 1.3 are
    independent of the certificate's key).
"""

import os
import sys
from typing import Final

from fedtrain.link.faults import TransportError

VARIABLE: Final = "GRPC_SSL_CIPHER_SUITES"
SUITES: Final = "ECDHE-RSA-AES256-GCM-SHA384"
_GRPC: Final = "grpc._cython.cygrpc"


def restrict_suites() -> None:
    """Leave gRPC without a suite for TLS 1.2; to be called before anything loads grpc.

    It is also kept from writing to standard error whatever a stranger's handshake says. Where grpc
    is loaded already, nothing is changed, and `check_suites` will say so.
    """
    if _GRPC not in sys.modules:
        os.environ[VARIABLE] = SUITES
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def check_suites() -> None:
    """Raise unless gRPC was loaded without a suite for TLS 1.2.

    Raises:
        TransportError: It was loaded too early, or another setting was made since.
    """
    if os.environ.get(VARIABLE) != SUITES:
        raise TransportError(
            "grpc was loaded before its TLS was restricted to 1.3; start through the command"
            " fedtrain, or call fedtrain.link.suites.restrict_suites() before flwr or grpc loads"
        )
