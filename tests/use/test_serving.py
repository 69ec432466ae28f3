"""`fedtrain serve`: answers, and refuses whatever the training schema does not know."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings

import pytest

from fedtrain.use.new_records import read_new_records
from fedtrain.use.serving import build_server, is_loopback
from tests.use.conftest import EXAMPLE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have httpx2
    from starlette.testclient import TestClient

PERSON = {"age": 63, "sex": "1", "cp": 1, "thal": "6"}


@pytest.fixture
def client(heart):
    return TestClient(build_server(heart), base_url="http://127.0.0.1:8000")


def ask(client, **changes):
    return client.post("/predict", json={"records": [PERSON | changes]})


def test_answer_is_the_model_s(client, heart, table):
    answer = ask(client).json()["predictions"][0]
    expected = heart.compute_probabilities(read_new_records(heart, table).features)[0]
    assert answer["probabilities"]["disease"] == pytest.approx(expected[1], rel=1e-6)
    assert answer["prediction"] in heart.label_names


def test_missing_columns_count_as_missing(client):
    assert client.post("/predict", json={"records": [{}]}).status_code == 200


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"weight": 80}, "weight"),
        ({"cp": "5"}, "cp"),
        ({"age": 130}, "age"),
        ({"age": 19.9}, "age"),
        ({"age": "sixty"}, "age"),
        ({"sex": True}, "sex"),
    ],
)
def test_record_outside_the_schema_is_refused_by_column(client, changes, word):
    reply = ask(client, **changes)
    assert reply.status_code == 422
    assert word in str(reply.json()["detail"][0]["loc"])


@pytest.mark.parametrize(
    "body", [{}, {"records": []}, {"records": [{}] * 1001}, [], {"rows": [{}]}]
)
def test_request_of_another_form_is_refused(client, body):
    assert client.post("/predict", json=body).status_code == 422


def test_infinite_number_is_refused(client):
    text = '{"records": [{"age": Infinity}]}'
    reply = client.post("/predict", content=text, headers={"content-type": "application/json"})
    assert reply.status_code == 422
    assert "age" in reply.text


def test_arrays_are_checked_by_shape_and_range(digits):
    client = TestClient(build_server(digits), base_url="http://localhost")
    blank = [[[0.0] * 8 for _ in range(8)]]
    assert client.post("/predict", json={"records": [blank]}).status_code == 200
    assert client.post("/predict", json={"records": [blank[0]]}).status_code == 422
    blank[0][0][0] = 17.0
    assert client.post("/predict", json={"records": [blank]}).status_code == 422


def test_schema_names_columns_and_categories(client):
    record = client.get("/openapi.json").json()["components"]["schemas"]["Record"]["properties"]
    assert record["age"]["anyOf"][0]["maximum"] == 90
    assert "4" in str(record["cp"])


def test_model_describes_itself(client):
    assert client.get("/model").json()["classes"] == ["healthy", "disease"]


def test_page_of_another_host_cannot_ask(heart):
    client = TestClient(build_server(heart), base_url="http://evil.example")
    assert ask(client).status_code == 400


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback_is_told(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.slow
def test_process_answers_until_it_is_interrupted():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "fedtrain", "serve", str(EXAMPLE), "--port", str(port)]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict",
        data=json.dumps({"records": [PERSON]}).encode(),
        headers={"content-type": "application/json"},
    )
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        for _ in range(300):
            try:
                with urllib.request.urlopen(request, timeout=5) as reply:
                    answers = json.load(reply)["predictions"]
                break
            except OSError:
                time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert answers[0]["prediction"] in ("healthy", "disease")


def test_port_that_is_taken_is_refused_in_one_line(call):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, text = call("serve", EXAMPLE, "--port", port)
    assert (code, text.count("\n")) == (2, 1)
    assert f"--port {port}: cannot listen there (Address already in use); choose another" in text
