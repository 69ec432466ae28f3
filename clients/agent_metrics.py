"""What Prometheus reads of an agent, on a loopback port: the counters of its status."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedtrain.errors import ConfigError

from .agent_status import STATES, AgentStatus, StatusBoard

LOOPBACK: Final = "127.0.0.1"
_COUNTERS: Final = (
    ("tasks", "Tasks answered."),
    ("errors", "Tasks answered by a public error code."),
    ("reconnects", "Sessions after the first."),
    ("bytes_down", "Bytes of contents received."),
    ("bytes_up", "Bytes of contents sent."),
    ("cpu_seconds", "Processor seconds of tasks."),
    ("gpu_seconds", "Seconds for which tasks had a GPU."),
)


class StatusCollector(Collector):
    """Reads the status whenever it is asked."""

    def __init__(self, board: StatusBoard) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        status = self._board.status
        state = GaugeMetricFamily("fedtrain_agent_state", "What it is doing.", labels=["state"])
        for name in STATES:
            state.add_metric([name], float(status.state == name))
        yield state
        for name, text in _COUNTERS:
            value = float(getattr(status, name))
            yield CounterMetricFamily(f"fedtrain_agent_{name}", text, value=value)
        for share, value in status.budget.items():
            yield GaugeMetricFamily(
                f"fedtrain_agent_budget_{share}_ratio",
                "Share of the lifetime budget.",
                value=value,
            )
        yield from _collect_times(status)


@contextmanager
def serving_metrics(board: StatusBoard, port: int) -> Iterator[None]:
    """Serve metrics on a loopback port for a while; 0 serves none.

    Raises:
        ConfigError: The port is taken.
    """
    if not port:
        yield
        return
    registry = CollectorRegistry()
    registry.register(StatusCollector(board))
    try:
        server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    except OSError as error:
        raise ConfigError(
            f"metrics_port = {port} cannot be used ({error.strerror}); choose another in agent.toml"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _collect_times(status: AgentStatus) -> Iterator[Metric]:
    if status.certificate_ends:
        ends = datetime.fromisoformat(status.certificate_ends).timestamp()
        yield GaugeMetricFamily(
            "fedtrain_agent_certificate_ends_timestamp_seconds", "When it ends.", value=ends
        )
    if status.clock_skew_ms is not None:
        yield GaugeMetricFamily(
            "fedtrain_agent_clock_skew_seconds",
            "The coordinator's clock minus the site's.",
            value=status.clock_skew_ms / 1000,
        )
