"""What operators are shown: runs, sites, the coordinator's state, as tables and as JSON."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from rich.console import RenderableType

from fedtrain.link import link_pb2
from fedtrain.report.tables import NOTHING, format_seconds, make_facts, make_table

_SKEW_SECONDS = 5.0  # of a clock that is worth a column


def render_runs(runs: Sequence[link_pb2.RunSummary]) -> RenderableType:
    """Return the table of `server runs`."""
    rows = [
        [
            run.run,
            run.status,
            run.reason or NOTHING,
            run.submitted_by,
            _format_time(run.submitted_ms),
            f"{run.round}/{run.rounds}",
            str(len(run.sites)),
        ]
        for run in runs
    ]
    headers = ("run", "status", "reason", "by", "submitted", "round", "sites")
    return make_table(headers, rows, texts=5)


def render_sites(sites: Sequence[link_pb2.SiteSummary], membership_version: int) -> RenderableType:
    """Return the table of `server sites`."""
    now = time.time()
    rows = [
        [
            site.name,
            site.state,
            site.version or NOTHING,
            _describe_membership(site, membership_version),
            NOTHING if not site.seen_ms else f"{format_seconds(now - site.seen_ms / 1000)} ago",
            _describe_skew(site),
        ]
        for site in sites
    ]
    headers = ("site", "state", "version", "membership", "heard", "clock ahead by")
    return make_table(headers, rows, texts=4)


def render_status(
    status: link_pb2.GetStatusReply, runs: Sequence[link_pb2.RunSummary]
) -> RenderableType:
    """Return the facts of `server status`."""
    running = next((run for run in runs if run.run == status.running), None)
    doing = "nothing"
    if running is not None:
        doing = f"{running.run}, round {running.round} of {running.rounds}"
        if running.reason:
            doing += f", {running.reason}"
    facts = [
        ("federation", f"{status.federation}, membership version {status.membership_version}"),
        ("coordinator", f"version {status.version}, since {_format_time(status.started_ms)}"),
        ("sites", f"{status.online} of {status.sites} online"),
        ("running", doing),
        ("queued", str(status.queued)),
        ("certificate ends", _format_time(status.certificate_ends_ms)),
        ("audit log", f"{status.audit_entries} lines, head {status.audit_head}"),
    ]
    return make_facts(facts)


def to_tree(message: Any) -> dict[str, Any]:
    """Return a reply as JSON has it, every key there."""
    tree: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {key: _to_number(message, key, value) for key, value in tree.items()}


def _to_number(message: Any, key: str, value: Any) -> Any:
    """Return a 64-bit number as a number: protobuf writes it as text."""
    field = getattr(message, key)
    return field if isinstance(field, int) and not isinstance(field, bool) else value


def _describe_membership(site: link_pb2.SiteSummary, version: int) -> str:
    if not site.membership_version:
        return NOTHING
    if site.membership_version == version:
        return f"{version}"
    return f"{site.membership_version}, now {version}"


def _describe_skew(site: link_pb2.SiteSummary) -> str:
    seconds = site.clock_skew_ms / 1000
    if abs(seconds) < _SKEW_SECONDS or not site.seen_ms:
        return NOTHING
    return f"{'-' if seconds < 0 else ''}{format_seconds(abs(seconds))}"


def _format_time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M")
