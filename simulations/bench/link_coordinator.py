"""The coordinator of the benchmark: the real one, which also sends models out and back."""

import logging
import sys
from pathlib import Path
from typing import Any, Final

from fedtrain.link.suites import restrict_suites

from .link_round import serve_rounds

ECHO: Final = "echo"
RUN_ID: Final = bytes(16)
_SECONDS: Final = 300.0


class Exchange:
    """Round trips over the coordinator's grid; all that a round of a run does but its own work."""

    def __init__(self, grid: Any) -> None:
        self._grid = grid
        self._round = 0
        self._models: dict[int, Any] = {}

    def __call__(self, size: int) -> None:
        """Send a model of some bytes to all sites and take it back from each.

        Raises:
            RuntimeError: A site sent an error, or something else back.
        """
        import numpy as np
        from flwr.app import ConfigRecord, Message, RecordDict

        from ..flower import hold

        self._grid.begin_rounds(self._round)  # forgets the round before, as each commit does
        self._round += 1
        if size not in self._models:
            self._models = {size: np.random.default_rng(0).random(size // 4, np.float32)}
        model = self._models[size]
        model[:1] = self._round
        content = RecordDict({"config": ConfigRecord({"round": self._round})})
        if size:
            content["arrays"] = hold({"model": model})
        messages = [
            Message(content, dst_node_id=node, message_type=f"query.{ECHO}")
            for node in self._grid.get_node_ids()
        ]
        for reply in self._grid.send_and_receive(messages, timeout=_SECONDS):
            if reply.has_error():
                raise RuntimeError(f"a site answered {reply.error}")
            if size:
                found = reply.content["arrays"]["model"].numpy()
                if found.shape != model.shape or found[0] != self._round:
                    raise RuntimeError("a site sent another model back")


def serve(folder: str, port: str, *pids: str) -> None:
    """Serve, and take rounds as they are commanded.

    Args:
        folder: The coordinator's.
        port: Where it listens.
        pids: Processes of the sites.
    """
    restrict_suites()  # before anything loads grpc
    from fedtrain.membership.member import load_member

    from ..loading import load_app, refer_to_sibling

    coordinator = load_app(refer_to_sibling("server.coordinator:Coordinator"))(Path(folder))
    logging.getLogger("flwr").setLevel(logging.WARNING)  # the table is all that is printed
    coordinator.serve()
    try:
        entries = load_member(Path(folder)).signed.membership.entries
        sites = tuple(entry.name for entry in entries if entry.role == "site")
        grid = coordinator.make_grid(RUN_ID, sites, lambda: False)
        grid.get_node_ids()  # waits for all of them
        serve_rounds(Exchange(grid), port=int(port), pids=[int(pid) for pid in pids])
    finally:
        coordinator.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
