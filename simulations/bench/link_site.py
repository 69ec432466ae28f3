"""A site of the benchmark: the real agent, whose app also sends back what it is asked to."""

import sys
from pathlib import Path

from fedtrain.link.suites import restrict_suites


def run(folder: str) -> None:
    """Run a site's agent until it is stopped.

    Args:
        folder: The site's.
    """
    restrict_suites()  # before anything loads grpc
    from flwr.app import Context, Message

    from ..loading import load_app, refer_to_sibling
    from .link_coordinator import ECHO

    def echo(message: Message, _: Context) -> Message:
        return Message(message.content, reply_to=message)

    load_app(refer_to_sibling("clients.app:app")).query(ECHO)(echo)
    load_app(refer_to_sibling("clients.running:run_agent"))(Path(folder))


if __name__ == "__main__":
    run(sys.argv[1])
