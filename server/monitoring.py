"""Prometheus metrics on a loopback port: what the coordinator has sent, received and waits for."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from .faults import CoordinatorError


class Monitoring:
    """The coordinator's counters, in a registry of their own."""

    def __init__(
        self,
        *,
        count_online: Callable[[], int],
        count_open: Callable[[], int],
        count_queued: Callable[[], int],
    ) -> None:
        """Make the metrics.

        Args:
            count_online: How many sites are connected.
            count_open: How many tasks wait for a reply.
            count_queued: How many runs are queued or under way.
        """
        self.registry = CollectorRegistry()
        self._down = Counter(
            "fedtrain_sent_bytes", "Content sent to sites.", registry=self.registry
        )
        self._up = Counter(
            "fedtrain_received_bytes", "Content received from sites.", registry=self.registry
        )
        self._tasks = Counter(
            "fedtrain_tasks_handed_out", "Tasks handed to sites.", registry=self.registry
        )
        for name, text, count in (
            ("fedtrain_sites_online", "Sites that are connected.", count_online),
            ("fedtrain_tasks_open", "Tasks that wait for a reply.", count_open),
            ("fedtrain_runs_unfinished", "Runs queued or under way.", count_queued),
        ):
            Gauge(name, text, registry=self.registry).set_function(count)
        self._stop: Callable[[], None] | None = None

    def count_down(self, size: int) -> None:
        """Count content sent."""
        self._down.inc(size)

    def count_up(self, size: int) -> None:
        """Count content received."""
        self._up.inc(size)

    def count_task(self, size: int) -> None:
        """Count a task that was handed out, and what of it was sent with it."""
        self._tasks.inc()
        self._down.inc(size)

    def serve(self, port: int) -> None:
        """Serve them on a port of this machine alone; 0 serves nothing.

        Raises:
            CoordinatorError: The port is taken.
        """
        if port == 0:
            return
        try:
            server, thread = start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except OSError as error:
            raise CoordinatorError(
                f"metrics_port = {port} cannot be used ({error.strerror}); choose another, or 0"
                " for none"
            ) from error

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stop = stop

    def close(self) -> None:
        """Serve no more."""
        if self._stop is not None:
            self._stop()
