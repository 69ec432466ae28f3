"""`fedtrain bench link`: the floor and real processes on loopback; no time is asserted."""

import json
import os
import socket
import sys

import pytest

from fedtrain.cli import main
from fedtrain.errors import RunFailedError
from simulations.bench.link_federation import make_environment, make_federation
from simulations.bench.link_round import starting
from simulations.bench.link_wire import count_wire_bytes
from simulations.bench.stopwatch import read_memory, read_processor_seconds


def test_wire_bytes_are_those_of_a_connection_at_the_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server, _ = listener.accept()
            with server:
                client.sendall(bytes(1000))
                server.recv(1000, socket.MSG_WAITALL)
                server.sendall(bytes(7))
                client.recv(7, socket.MSG_WAITALL)
                assert count_wire_bytes(port) == 1007


def test_memory_and_processor_seconds_of_another_process():
    assert read_memory(os.getpid()) > 2**20
    assert read_processor_seconds(os.getpid()) > 0


def test_floor_sends_bytes_to_each_client_and_back(tmp_path):
    federation = make_federation(tmp_path, sites=2)
    folders = [federation.coordinator, *map(federation.get_folder, federation.sites)]
    module = "simulations.bench.link_floor"
    command = [sys.executable, "-m", module, "serve", *map(str, folders)]
    with starting("floor", command, make_environment()) as centre:
        found = centre.run_round(100_000)
    assert 400_000 < found.wire < 410_000
    assert found.memory >= found.site_memory > 0


def test_centre_that_ends_is_a_failure():
    command = [sys.executable, "-c", ""]
    with (
        pytest.raises(RunFailedError, match="'x' ended in the middle"),
        starting("x", command, make_environment()),
    ):
        pass


@pytest.mark.slow
def test_bench_link_prints_floor_and_federation_of_each_size(capsys):
    sizes = ("--sizes", "0", "1", "--rounds", "2", "--secure-rounds", "1")
    assert main(["bench", "link", *sizes, "--sites", "4", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    trips = [(trip["contender"], trip["bytes"]) for trip in tree["trips"]]
    assert trips == [("floor", 0), ("fedtrain", 0), ("floor", 10**6), ("fedtrain", 10**6)]
    assert 8e6 < tree["trips"][3]["wire"] < 8.2e6
    assert len(tree["secure_seconds"]) == 1


def test_bench_link_refuses_a_negative_size(capsys):
    assert main(["bench", "link", "--sizes", "-1"]) == 2
    assert "-1 is below 0" in capsys.readouterr().err
