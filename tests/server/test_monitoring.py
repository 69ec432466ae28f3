import socket
import urllib.request

import pytest

from server.faults import CoordinatorError
from server.monitoring import Monitoring
from tests.server.deployment import find_free_port


def make_monitoring():
    return Monitoring(count_online=lambda: 3, count_open=lambda: 2, count_queued=lambda: 1)


def test_metrics_are_served_on_loopback():
    monitoring, port = make_monitoring(), find_free_port()
    monitoring.count_down(100)
    monitoring.count_task(5)
    monitoring.serve(port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            text = reply.read().decode()
    finally:
        monitoring.close()
    assert "fedtrain_sent_bytes_total 105.0" in text
    assert "fedtrain_sites_online 3.0" in text


def test_taken_port_is_refused_in_words():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CoordinatorError, match="metrics_port"):
            make_monitoring().serve(taken.getsockname()[1])
