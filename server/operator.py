"""An operator's calls to a coordinator, from the operator's own folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final

import grpc

from fedtrain.errors import ConfigError, PeerError
from fedtrain.link import link_pb2
from fedtrain.link.link_pb2_grpc import ControlStub
from fedtrain.link.status import translate
from fedtrain.link.tls import open_channel
from fedtrain.membership.member import load_member
from fedtrain.membership.records import COORDINATOR, SITE_ROLE

_SECONDS: Final = 30.0
_RESOLVE_SECONDS: Final = 300.0  # a submission calibrates its noise
_MOST_NAME: Final = 200


class Operator:
    """The calls of one operator, each with a deadline."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = ControlStub(channel)

    def submit(self, scenario: Path, *, overrides: list[str], sites: list[str]) -> str:
        """Queue a run; return its name."""
        request = link_pb2.SubmitRequest(
            scenario=scenario.read_text(encoding="utf-8"),
            overrides=overrides,
            name=scenario.name,
            sites=sites,
        )
        run: str = self._call("Submit", request, _RESOLVE_SECONDS).run
        return run

    def list_runs(self) -> list[link_pb2.RunSummary]:
        """Return all runs."""
        return list(self._call("ListRuns", link_pb2.ListRunsRequest()).runs)

    def find_run(self, run: str) -> link_pb2.RunSummary:
        """Return one run.

        Raises:
            ConfigError: There is none of this name.
        """
        for summary in self.list_runs():
            if summary.run == run:
                return summary
        raise ConfigError(f"no run {run[:80]!r}; fedtrain server runs lists what there is")

    def list_sites(self) -> list[link_pb2.SiteSummary]:
        """Return all sites."""
        return list(self._call("ListSites", link_pb2.ListSitesRequest()).sites)

    def get_status(self) -> link_pb2.GetStatusReply:
        """Return how the coordinator is."""
        reply: link_pb2.GetStatusReply = self._call("GetStatus", link_pb2.GetStatusRequest())
        return reply

    def stop(self, run: str) -> str:
        """Stop a run; return its status."""
        status: str = self._call("StopRun", link_pb2.RunRequest(run=run)).status
        return status

    def resume(self, run: str) -> str:
        """Queue a run again; return its status."""
        status: str = self._call("ResumeRun", link_pb2.RunRequest(run=run)).status
        return status

    def install(self, membership: bytes) -> int:
        """Hand a newer membership to the coordinator; return its version."""
        request = link_pb2.InstallMembershipRequest(membership=membership)
        version: int = self._call("InstallMembership", request).version
        return version

    def read_log(self, run: str, *, follow: bool) -> Iterator[str]:
        """Yield a log, piece by piece."""
        request = link_pb2.FollowLogRequest(run=run, follow=follow)
        with _translating():
            for lines in self._stub.FollowLog(request, timeout=None if follow else _SECONDS):
                yield lines.text

    def fetch(self, run: str, out: Path) -> None:
        """Write the files of a run's directory into a new folder.

        Raises:
            ConfigError: The folder exists.
            PeerError: A file's name leads out of it.
        """
        partial = out.with_name(f"{out.name}.partial")
        if out.exists():
            raise ConfigError(f"--out {out} exists; choose another folder")
        partial.mkdir(parents=True, exist_ok=True)
        path: Path | None = None
        with _translating():
            for chunk in self._stub.FetchRun(link_pb2.RunRequest(run=run)):
                mode = "wb" if chunk.name else "ab"
                if chunk.name:
                    path = partial / check_name(chunk.name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                if path is None:
                    raise PeerError("the coordinator sent a file without a name; try again")
                with path.open(mode) as file:
                    file.write(chunk.data)
        partial.replace(out)

    def _call(self, method: str, request: Any, seconds: float = _SECONDS) -> Any:
        with _translating():
            return getattr(self._stub, method)(request, timeout=seconds)


@contextmanager
def connect(folder: Path) -> Iterator[Operator]:
    """Dial the coordinator of an operator's federation.

    Args:
        folder: The operator's own.

    Raises:
        ConfigError: It is no operator's folder.
        FedtrainError: A part of it is missing or does not hold.
    """
    member = load_member(folder)
    if member.role in (SITE_ROLE, COORDINATOR):
        raise ConfigError(
            f"{folder} is the folder of {member.role} {member.name!r}; --as takes an operator's"
            " (admin, researcher, auditor)"
        )
    with open_channel(folder, member.signed.membership.coordinator) as channel:
        yield Operator(channel)


def check_name(name: str) -> PurePosixPath:
    """Return the name of a file within a folder.

    Raises:
        PeerError: It leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or len(name) > _MOST_NAME:
        raise PeerError(
            f"the coordinator sent a file named {name[:80]!r}; nothing is written there"
        )
    return path


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise translate(error) from error
