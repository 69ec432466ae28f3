"""What an agent is doing, for people and as JSON."""

from dataclasses import asdict
from typing import Any, Final

from rich.console import RenderableType

from fedtrain.report.tables import (
    NOTHING,
    format_bytes,
    format_count,
    format_seconds,
    format_time,
    make_facts,
)

from .agent_status import FAILED, PAUSED, RECEIVING, SENDING, STOPPED, WAITING, WORKING, AgentStatus

KILLED: Final = "killed"
NEVER: Final = "never started"
_AT_WORK: Final = (WAITING, RECEIVING, WORKING, SENDING, PAUSED)
_ENDED: Final = (STOPPED, FAILED)


def find_state(status: AgentStatus | None, *, running: bool) -> str:
    """Return the agent's state, whatever its file says: a killed one could not say so."""
    if status is None:
        return NEVER
    return status.state if running or status.state in _ENDED else KILLED


def is_at_work(status: AgentStatus | None, *, running: bool) -> bool:
    """Say whether an agent runs and has a session."""
    return running and status is not None and status.state in _AT_WORK


def build_report(status: AgentStatus | None, *, running: bool) -> dict[str, Any]:
    """Return the status as a JSON object."""
    tree = {} if status is None else asdict(status)
    return tree | {"state": find_state(status, running=running), "running": running}


def render_report(status: AgentStatus | None, *, running: bool) -> RenderableType:
    """Return the status as a list of facts."""
    state = find_state(status, running=running)
    if status is None:
        return make_facts([("state", f"{state}; start it with fedtrain client start")])
    facts = [
        ("site", f"{status.site} of {status.federation or NOTHING}"),
        ("state", f"{state} since {format_time(status.since)}"),
        ("missing", status.missing or "nothing"),
        ("coordinator", _describe_coordinator(status)),
        ("membership", f"version {status.membership_version}"),
        ("certificate", f"ends {format_time(status.certificate_ends)}"),
        ("last task", _describe_task(status)),
        ("done", _describe_work(status)),
        ("budget", _describe_budget(status)),
        ("last error", _describe_error(status)),
    ]
    return make_facts(facts)


def _describe_coordinator(status: AgentStatus) -> str:
    if not status.coordinator_version:
        return status.coordinator or NOTHING
    skew = "" if status.clock_skew_ms is None else f", clock {status.clock_skew_ms / 1000:+.1f} s"
    return f"{status.coordinator}, fedtrain {status.coordinator_version}{skew}"


def _describe_task(status: AgentStatus) -> str:
    if not status.task:
        return NOTHING
    return f"{status.task} of run {status.run or NOTHING}, round {status.round}"


def _describe_work(status: AgentStatus) -> str:
    gpu = f" {format_seconds(status.gpu_seconds)} of GPUs," if status.gpu_seconds else ""
    return (
        f"{format_count(status.tasks, 'task')}, {format_count(status.errors, 'error')},"
        f" {format_bytes(status.bytes_down)} down, {format_bytes(status.bytes_up)} up,"
        f" {format_seconds(status.cpu_seconds)} of processors,{gpu}"
        f" {format_count(status.reconnects, 'reconnection')}"
    )


def _describe_budget(status: AgentStatus) -> str:
    if not status.budget:
        return NOTHING
    shares = (f"{value:.1%} {name}" for name, value in status.budget.items())
    return f"{', '.join(shares)}, of the site's lifetime"


def _describe_error(status: AgentStatus) -> str:
    if not status.last_error:
        return "none"
    return f"{format_time(status.last_error_at)} {status.last_error}"
