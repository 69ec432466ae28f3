"""A site's folder: which roster a round may be of, and where its draws come from."""

from pathlib import Path

import pytest

from clients.custody import (
    ROOT_FILE,
    ROSTER_FILE,
    ROSTERS_FOLDER,
    Custody,
    create_custody,
    open_custody,
)
from fedtrain.config import build_config
from fedtrain.secagg import Identity, RefusalError
from fedtrain.secagg.files import save_public_key, save_roster
from fedtrain.secagg.messages import RoundContext
from fedtrain.secagg.roster import compute_roster_digest, make_roster, sign_roster

CONFIG = build_config({})
SITES = ("anna", "berta", "clara")


def sign(root: Identity, version: int, keys: dict[str, bytes]):
    return sign_roster(make_roster("federation", version, keys=keys), root)


class Site:
    """A site's folder whose root signs one roster after the other."""

    def __init__(self, path: Path) -> None:
        self.custody: Custody = create_custody(path, "anna")
        self.root = Identity.generate()
        self.keys = {name: Identity.generate().public_key for name in SITES}
        save_public_key(path / ROOT_FILE, self.root.public_key)
        (path / ROSTERS_FOLDER).mkdir()

    def pin(self, version: int, keys: dict[str, bytes]) -> bytes:
        """Pin a roster; return its digest."""
        signed = sign(self.root, version, keys)
        digest = compute_roster_digest(signed)
        path = self.custody.path
        save_roster(path / ROSTERS_FOLDER / f"{digest.hex()}.bin", signed)
        save_roster(path / ROSTER_FILE, signed)
        return digest

    def find_version(self, digest: bytes) -> int:
        """Return the version of the roster that a round of this digest is checked against."""
        context = RoundContext(
            "federation", "run", 1, 0, digest, bytes(32), bytes(32), SITES, 3, 1, 32, 0
        )
        return self.custody.load_policy(CONFIG, context).roster.roster.version


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "anna")


def test_run_goes_on_with_its_roster_when_a_site_is_added(site):
    digest = site.pin(1, site.keys)
    site.pin(2, site.keys | {"dora": Identity.generate().public_key})
    assert site.find_version(digest) == 1


def test_roster_that_was_never_pinned_is_not_taken(site):
    site.pin(2, site.keys)
    unknown = compute_roster_digest(sign(site.root, 1, site.keys))
    assert site.find_version(unknown) == 2


@pytest.mark.parametrize("key", [None, bytes(32)])
def test_run_with_a_revoked_or_renewed_site_ends(site, key):
    digest = site.pin(1, site.keys)
    later = {name: value for name, value in site.keys.items() if name != "clara"}
    site.pin(2, later if key is None else later | {"clara": key})
    with pytest.raises(RefusalError, match="'clara' is not in the newest roster"):
        site.find_version(digest)


def test_secret_of_a_run_lasts_and_is_of_one_run_and_site(site, tmp_path):
    secret = site.custody.load_secret("run-1")
    assert open_custody(site.custody.path).load_secret("run-1") == secret
    other = create_custody(tmp_path / "berta", "berta").load_secret("run-1")
    assert len({secret, site.custody.load_secret("run-2"), other}) == 3
    assert len(secret) == 32
