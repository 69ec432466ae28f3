"""Everything that an agent needs, put together: what `fedtrain client start` runs."""

import importlib
import logging
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Final

from fedtrain.errors import SiteError
from fedtrain.membership.member import load_member
from fedtrain.membership.records import SITE_ROLE

from .agent import Agent, AgentParts
from .agent_folder import hold_lock, open_agent_folder
from .agent_log import logging_at_site
from .agent_metrics import serving_metrics
from .agent_settings import load_settings
from .agent_status import StatusBoard
from .control import Wish, read_wish, write_wish
from .custody import open_custody
from .stop import Stop
from .work import Work

# What a first task would import, while the coordinator waits.
_WARM: Final = ("fedtrain.data.sources", "fedtrain.privacy.accounting", "fedtrain.training.dp_sgd")
log = logging.getLogger("fedtrain.clients")


def run_agent(path: Path) -> None:
    """Run a site's agent until it is stopped.

    Args:
        path: The site's folder.

    Raises:
        SiteError: The folder is no site's that has joined, an agent runs in it, or it was revoked.
        FedtrainError: See `Agent.run`.
    """
    settings, custody = load_settings(path), open_custody(path)
    member = load_member(path)
    if (member.name, member.role) != (custody.name, SITE_ROLE):
        raise SiteError(
            f"{path} is of site {custody.name!r}, its kit of {member.role} {member.name!r}; join"
            " with this site's own kit"
        )
    folder, stop = open_agent_folder(path), Stop(settings.stop_seconds)
    with ExitStack() as stack:
        stack.enter_context(hold_lock(folder))
        if read_wish(folder) is Wish.LEAVE:  # of the agent before
            write_wish(folder, Wish.RUN)
        stack.enter_context(stop.listening())
        stack.enter_context(logging_at_site(folder.log))
        version = metadata.version("fedtrain")
        board = StatusBoard(folder.status, custody.name)
        board.update(version=version)
        stack.enter_context(serving_metrics(board, settings.metrics_port))
        log.info("agent_began site=%s version=%s", custody.name, version)
        parts = AgentParts(path, version, settings, folder=folder, board=board, stop=stop)
        Agent(parts, _make_work(parts)).run()
        log.info("agent_ended site=%s", custody.name)


def _make_work(parts: AgentParts) -> Work:
    """Import the app, with torch and all that training needs: once, before the first task."""
    import torch

    from .app import app

    for name in _WARM:
        importlib.import_module(name)

    if parts.settings.threads:
        torch.set_num_threads(parts.settings.threads)
    return Work(app, parts.path, settings=parts.settings, stop=parts.stop, board=parts.board)
