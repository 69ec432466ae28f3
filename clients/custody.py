"""A site's own folder: who it is, what it allows, and what it has spent.

    SITE/
      site.toml      the site's name in the federation's roster
      policy.toml    what the site allows; wins over any run's config
      identity.key   the site's long-term key, for its owner's eyes only
      ledger/        the ledger of its data set: lifetime budget and releases
      state/         what secure aggregation must not forget
      kept/          what is the site's own of a run: control variates, layers, models
      root.pub       the federation's root key, and
      roster.bin     the roster that it signed; both pinned, where the site has joined one
      rosters/       every roster that it ever pinned, by digest: of runs that began with them

Nothing here comes from a coordinator. A run is admitted before data is opened: policy first, then
budget.
"""

import os
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import tomli_w

from fedtrain.config import Config, compute_digest
from fedtrain.errors import PeerError, SiteError
from fedtrain.ledger.site_ledger import Released, SiteLedger
from fedtrain.ledger.terms import Terms
from fedtrain.params import Vector
from fedtrain.plan import (
    build_record_plan,
    build_site_plan,
    build_statistics_event,
    compute_planned_site_cost,
)
from fedtrain.policy import Policy, PolicyError, check_config, describe_policy, load_policy
from fedtrain.privacy.events import Event, Unprotected
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.files import create_identity, load_identity, load_root_key, load_roster
from fedtrain.secagg.messages import RoundContext, SignedRoster
from fedtrain.secagg.policy import SitePolicy
from fedtrain.secagg.replay import load_pinned, pin_text
from fedtrain.secagg.roster import Identity, compute_roster_digest, get_keys
from fedtrain.secagg.store import FileStore
from fedtrain.training.local import LocalUpdate

SITE_FILE: Final = "site.toml"
POLICY_FILE: Final = "policy.toml"
IDENTITY_FILE: Final = "identity.key"
LEDGER_FOLDER: Final = "ledger"
STATE_FOLDER: Final = "state"
KEPT_FOLDER: Final = "kept"
ROOT_FILE: Final = "root.pub"
ROSTER_FILE: Final = "roster.bin"
ROSTERS_FOLDER: Final = "rosters"
# What follows the update in a stored release: its loss and its number of steps.
_TAIL: Final = np.dtype([("train_loss", "<f8"), ("steps", "<u8")])


@dataclass(frozen=True)
class Custody:
    """A site's folder, opened.

    Attributes:
        path: The folder.
        name: The site's name.
        policy: What it allows.
        identity: Its long-term key.
        ledger: Of its data set.
        store: What secure aggregation must not forget.
    """

    path: Path
    name: str
    policy: Policy
    identity: Identity
    ledger: SiteLedger
    store: FileStore

    def admit(self, config: Config, run: str) -> None:
        """Check a run against policy and budget, and reserve its rounds; data stays closed.

        Args:
            config: The resolved config.
            run: The run's identifier, unlike any other's.

        Raises:
            PolicyError: A rule refuses.
            BudgetError: The budget cannot bear one round of it.
            PeerError: The run has no name.
        """
        if not run:
            raise PeerError("the message names no run; this site pays for none without a name")
        cost = compute_planned_site_cost(config, outside=False)
        check_config(self.policy, config, site_cost=cost)
        if config.statistics is not None:
            self._admit_question(config, run)
        elif config.privacy.unit != "none":  # allowed by name in the policy: it has no price
            self.ledger.reserve(make_terms(config, run), partial=self.policy.partial_runs)

    def verify_exact(self, run: str) -> None:
        """Refuse sums without noise where the policy's number of them has been given.

        Raises:
            PolicyError: Other runs have had all.
        """
        if self._find_exact_place(run) is None:
            raise PolicyError(
                "exact_statistics",
                f"{self.policy.exact_statistics} runs had sums without noise already; this site's"
                " policy.exact_statistics allows no more, for two can be subtracted; ask with"
                " statistics.target_epsilon",
            )

    def take_exact(self, run: str) -> None:
        """Count a run whose sum has no noise, before it leaves; the same run is counted once.

        Raises:
            PolicyError: As `verify_exact`.
        """
        while (place := self._find_exact_place(run)) is not None:
            with suppress(RefusalError):  # another process took the place
                pin_text(self.store, _name_exact(place), run)
                return
        self.verify_exact(run)

    def _admit_question(self, config: Config, run: str) -> None:
        if build_statistics_event(config) is None:
            self.verify_exact(run)
        else:
            self.ledger.reserve(make_terms(config, run), partial=False)

    def _find_exact_place(self, run: str) -> int | None:
        """Return the first place that is free or this run's own."""
        for place in range(self.policy.exact_statistics):
            if load_pinned(self.store, _name_exact(place)) in (None, run):
                return place
        return None

    def load_policy(self, config: Config, context: RoundContext) -> SitePolicy:
        """Return what this site demands of a secure sum: its pinned roster, its own minima.

        A run goes on with the roster that it began with, where a newer one has been pinned since:
        as long as every site of the cohort is still in the newer one, under the same key.

        Raises:
            SiteError: The site has joined no federation, or its roster does not hold.
            RefusalError: A site of the cohort was revoked or has another key now.
        """
        root_path = self.path / ROOT_FILE
        if not root_path.exists():
            raise SiteError(
                f"{root_path} is missing: this site has joined no federation; put the root's key"
                f" and the roster that it signed there ({ROOT_FILE}, {ROSTER_FILE})"
            )
        root = load_root_key(root_path)
        section = config.secure_aggregation
        return SitePolicy(
            root_public_key=root,
            roster=self._find_roster(context, root),
            min_cohort=max(self.policy.min_cohort, section.min_cohort),
            dropout_share=section.dropout_share,
            corrupt_share=section.corrupt_share,
        )

    def load_secret(self, run: str) -> bytes:
        """Return this site's secret of a run, 32 bytes; drawn from the system on first use.

        A round's draws come from it, so that a process that was killed in the middle of a round
        and one that takes its place draw the same sample, noise and rounding: nothing of a round
        can be had twice with other noise, and averaged.
        """
        key = f"secret/{run}"
        with self.store.lock(key):
            secret = self.store.load(key)
            if secret is None:
                secret = os.urandom(32)
                self.store.save(key, secret)
        return secret

    def _find_roster(self, context: RoundContext, root: bytes) -> SignedRoster:
        """Return the roster that a context names, if the newest one bears it out; or the newest."""
        current = load_roster(self.path / ROSTER_FILE, root)
        earlier = self.path / ROSTERS_FOLDER / f"{context.roster_digest.hex()}.bin"
        if context.roster_digest == compute_roster_digest(current) or not earlier.exists():
            return current
        roster = load_roster(earlier, root)
        now, then = get_keys(current.roster), get_keys(roster.roster)
        for site in context.cohort:
            if site not in now or now[site] != then.get(site):
                raise RefusalError("roster", f"site {site!r} is not in the newest roster any more")
        return roster


def make_terms(config: Config, run: str) -> Terms:
    """Return what a run asks of a site's budget: the mechanism of one round, and its rounds.

    Where two units are protected, the record's or person's mechanism counts: it holds by itself.
    """
    record, site = build_record_plan(config), build_site_plan(config)
    unit = config.privacy.unit.partition("_")[0]
    event: Event = Unprotected()
    if config.statistics is not None:
        event, unit = build_statistics_event(config) or event, "record"
    elif record is not None:
        event = record.to_event(1)
    elif site is not None:
        event = site.to_event(1, outside=False)
    return Terms(
        run=run,
        config_digest=compute_digest(config),
        unit=unit,  # type: ignore[arg-type]
        event=event,
        rounds=config.rounds,
    )


def _name_exact(place: int) -> str:
    return f"exact statistics/{place}"


def pack_update(update: LocalUpdate) -> bytes:
    """Return an update as the bytes of a release."""
    tail = np.array([(update.train_loss, update.steps)], _TAIL)
    return update.vector.astype("<f4", copy=False).tobytes() + tail.tobytes()


def unpack_update(released: Released) -> LocalUpdate:
    """Return the update of a release."""
    payload = released.payload
    cut = len(payload) - _TAIL.itemsize
    vector: Vector = np.frombuffer(payload, "<f4", count=cut // 4).astype(np.float32)
    loss, steps = np.frombuffer(payload, _TAIL, offset=cut)[0]
    return LocalUpdate(vector, float(loss), int(steps))


def create_custody(path: Path, name: str, *, policy: Policy | None = None) -> Custody:
    """Make a site's folder, with a new key and a new ledger.

    Args:
        path: Must not exist; its parent is made.
        name: The site's name in the federation's roster.
        policy: By default the template's.

    Raises:
        SiteError: The folder exists or cannot be made.
        ConfigError: The policy's budget admits nothing.
    """
    policy = policy or Policy()
    try:
        path.mkdir(parents=True, mode=0o700)
        (path / SITE_FILE).write_text(tomli_w.dumps({"name": name}), encoding="utf-8")
        (path / POLICY_FILE).write_text(describe_policy(policy), encoding="utf-8")
    except OSError as error:
        raise SiteError(
            f"{path} cannot be made ({error.strerror}); name a folder that does not exist"
        ) from error
    identity = create_identity(path / IDENTITY_FILE)
    FileStore.create(path / STATE_FOLDER)
    SiteLedger.create(path / LEDGER_FOLDER, name, budget=policy.to_budget(), identity=identity)
    return open_custody(path)


def make_folders(path: Path, names: Sequence[str]) -> None:
    """Make the folders of a simulation's sites, each where it is missing."""
    for name in names:
        if not (path / name).exists():
            create_custody(path / name, name)


def open_custody(path: Path) -> Custody:
    """Open a site's folder; a policy that changed since is read anew.

    Raises:
        SiteError: A part of it is missing or unreadable: the site then takes part in nothing.
        ConfigError: The policy does not satisfy its schema.
        AuditError: The ledger does not hold.
    """
    identity, ledger, store = _open_parts(path)
    return Custody(
        path, _read_name(path / SITE_FILE), load_policy(path / POLICY_FILE), identity, ledger, store
    )


@lru_cache(maxsize=4096)
def _open_parts(path: Path) -> tuple[Identity, SiteLedger, FileStore]:
    identity = load_identity(path / IDENTITY_FILE)
    return identity, SiteLedger(path / LEDGER_FOLDER, identity), FileStore(path / STATE_FOLDER)


def _read_name(path: Path) -> str:
    try:
        name = tomllib.loads(path.read_text(encoding="utf-8")).get("name")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SiteError(f"{path} cannot be read; restore this site's folder") from error
    if not isinstance(name, str) or not name:
        raise SiteError(f'{path} names no site; write name = "..." as in the roster')
    return name
