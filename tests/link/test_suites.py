"""TLS 1.2 is shut out before gRPC is loaded, or nothing is served: each in a process of its own."""

import os
import subprocess
import sys

import pytest

from fedtrain.link.suites import SUITES, VARIABLE
from tests.link.deployment import Deployment

SERVE = """
import sys
from pathlib import Path
from fedtrain.link.suites import restrict_suites
{before}
import grpc
{after}
from fedtrain.errors import FedtrainError
from fedtrain.link import tls
from tests.link.deployment import Deployment, serving

deployment = Deployment.__new__(Deployment)
deployment.coordinator, deployment.address = Path(sys.argv[1]), sys.argv[2]
pair = tuple((deployment.coordinator / name).read_bytes() for name in ("tls.key", "tls.crt"))
ca = (deployment.coordinator / "ca.crt").read_bytes()
{make}
try:
    credentials = make()
    with serving(deployment, credentials=credentials):
        tls.check_server(deployment.coordinator, deployment.address)
    print("served")
except FedtrainError as error:
    print(type(error).__name__, error)
"""
OURS = "make = lambda: tls.make_server_credentials(deployment.coordinator)"
GRPC_S = "make = lambda: grpc.ssl_server_credentials([pair], ca, True)"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Deployment(tmp_path_factory.mktemp("federation"))


def serve(made, **parts):
    """Return what a fresh process says that serves and checks itself."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    script = SERVE.format(**{"before": "", "after": "", **parts})
    done = subprocess.run(
        [sys.executable, "-c", script, str(made.coordinator), made.address],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_server_with_restricted_suites_passes_its_own_check(made):
    assert serve(made, before="restrict_suites()", make=OURS) == "served\n"


def test_server_without_restricted_suites_is_caught_by_its_own_check(made):
    assert "TransportError" in (said := serve(made, make=GRPC_S))
    assert "takes TLS 1.2" in said


@pytest.mark.slow
def test_setting_made_too_late_is_caught_by_the_check_of_the_server(made):
    late = f"import os; os.environ['{VARIABLE}'] = '{SUITES}'"
    assert "takes TLS 1.2" in serve(made, after=late, make=OURS)


def test_grpc_that_was_loaded_before_is_said(made):
    assert "loaded before" in serve(made, after="restrict_suites()", make=OURS)
