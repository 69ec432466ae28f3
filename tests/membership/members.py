"""A small federation in a folder: its root, a coordinator and two sites."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedtrain.membership.federation import approve, create_federation
from fedtrain.membership.kits import install_kit
from fedtrain.membership.records import Kit
from fedtrain.membership.requests import create_request

ADDRESS = "127.0.0.1:7443"
NOW = 1_800_000_000
DAY = 86_400


class Federation:
    """The root's folder `path / "root"`, and a folder for each member beside it."""

    def __init__(self, path: Path, now: int | None = NOW) -> None:
        self.path, self.now = path, now
        self.root = path / "root"
        create_federation(self.root, "heart", ADDRESS, now=now)

    def approve(self, name: str, role: str = "site", **options: object) -> Kit:
        """Make a member's request and approve it."""
        address = ADDRESS if role == "coordinator" else ""
        request = create_request(self.path / name, name, role, address)
        return approve(self.root, request, **{"now": self.now, **options})

    def join(self, name: str, role: str = "site") -> Path:
        """Take a member in and install its kit; its folder is returned."""
        install_kit(self.path / name, self.approve(name, role), now=self.now)
        return self.path / name


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
