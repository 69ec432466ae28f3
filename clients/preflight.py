"""Before an agent starts: one line for each thing that it needs, `ok` or what to do.

Everything is checked, whether or not an earlier check failed, and nothing is changed: no budget is
reserved, no task is taken, no running agent is disturbed.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedtrain.errors import DataError, FedtrainError, SiteError
from fedtrain.ledger.budget import UNITS_PER_ONE
from fedtrain.ledger.verify import verify_ledger
from fedtrain.membership.certificates import check_times
from fedtrain.membership.member import load_member
from fedtrain.membership.requests import compute_root_fingerprint
from fedtrain.policy import Policy
from fedtrain.report.tables import format_bytes, format_count
from fedtrain.report.verify import raise_first

from .agent_settings import load_settings
from .custody import LEDGER_FOLDER, open_custody
from .preflight_data import open_data
from .preflight_link import dial

LEAST_DISK: Final = 2**30
LEAST_MEMORY: Final = 2**30
_RENEW_DAYS: Final = 30
_DAY: Final = 86400
_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        name: What was looked at.
        text: What was found, or what to do.
        is_ok: Whether the agent can live with it.
    """

    name: str
    text: str
    is_ok: bool = True


def check_site(site: Path, scenario: str | None = None) -> Iterator[Finding]:
    """Yield each finding as it is made.

    Args:
        site: The site's folder.
        scenario: A file, or the name of a scenario that ships, whose data the site's is to fit.
    """
    local: tuple[tuple[str, Callable[[Path], str]], ...] = (
        ("folder", _check_folder),
        ("membership", _check_membership),
        ("certificate", _check_certificate),
        ("disk", _check_disk),
        ("processors", _check_processors),
        ("memory", _check_memory),
        ("gpu", _check_gpu),
        ("policy", _check_policy),
        ("ledger", _check_ledger),
    )
    for name, check in local:
        yield _run(name, lambda check=check: check(site))  # type: ignore[misc]
    for name, link_check in dial(site):
        yield _run(name, link_check)
    yield _run("data", lambda: _check_data(site))
    if scenario is not None:
        yield _run("scenario", lambda: open_data(site, scenario))


def describe_allowed(policy: Policy) -> str:
    """Return a policy in words."""
    parts = [
        f"runs that protect {' or '.join(policy.allowed_units)}",
        f"epsilon at most {policy.max_epsilon:g} a run at delta {policy.max_delta:g}",
        f"noise multiplier at least {policy.min_noise_multiplier:g}",
        f"sums over at least {policy.min_cohort} sites",
    ]
    if policy.secure_aggregation_required:
        parts.append("single updates are never shown")
    if policy.statistics:
        parts.append(f"statistics of epsilon at most {policy.max_statistics_epsilon:g}")
    if policy.exact_statistics:
        parts.append(f"{format_count(policy.exact_statistics, 'sum')} without noise, ever")
    if policy.columns is not None:
        parts.append(f"{format_count(len(policy.columns), 'column')} may be used")
    if policy.models is not None:
        parts.append(f"models {', '.join(policy.models)}")
    if policy.own_code:
        parts.append("code of a run's own may be named")
    return "; ".join(parts)


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, check())
    except FedtrainError as error:
        return Finding(name, " ".join(str(error).split()), is_ok=False)
    except OSError as error:
        return Finding(name, f"{error.filename}: {error.strerror}", is_ok=False)


def _check_folder(site: Path) -> str:
    mode = site.stat().st_mode & 0o777
    if mode & 0o077:
        raise SiteError(f"{site} has mode {mode:04o}, so that others can enter it; chmod 700 it")
    return f"{site}, site {open_custody(site).name}"


def _check_membership(site: Path) -> str:
    member = load_member(site)
    membership = member.signed.membership
    if member.entry is None:
        raise SiteError(
            f"{member.name} is not in version {membership.version} of {membership.federation}: it"
            " was revoked; ask the federation's root"
        )
    own = open_custody(site).name
    if member.name != own:
        raise SiteError(
            f"site.toml says {own!r}, the membership {member.name!r}; correct site.toml"
        )
    return (
        f"{membership.federation} version {membership.version},"
        f" {format_count(len(membership.roster.roster.entries), 'site')}; root"
        f" {compute_root_fingerprint(member.root_public_key)}"
    )


def _check_certificate(site: Path) -> str:
    certificate, now = load_member(site).certificate, int(time.time())
    check_times(certificate, now=now)
    end = certificate.not_valid_after_utc
    days = int(end.timestamp() - now) // _DAY
    text = f"ends on {end:%Y-%m-%d}, in {format_count(days, 'day')}"
    renewal = f"; renew it: fedtrain federation renew {site}"
    return text + (renewal if days < _RENEW_DAYS else "")


def _check_disk(site: Path) -> str:
    free = shutil.disk_usage(site).free
    if free < LEAST_DISK:
        raise SiteError(
            f"{format_bytes(free)} are free for {site}, at least {format_bytes(LEAST_DISK)} are"
            " needed; make room"
        )
    if not os.access(site, os.W_OK):
        raise SiteError(f"{site} cannot be written by this user; let it")
    return f"{format_bytes(free)} free"


def _check_processors(_: Path) -> str:
    return f"{len(os.sched_getaffinity(0))} for this process, load {os.getloadavg()[0]:.1f}"


def _check_memory(_: Path) -> str:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    amounts = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    available = amounts.get("MemAvailable", 0)
    limit = _CGROUP_LIMIT.read_text(encoding="ascii").strip() if _CGROUP_LIMIT.exists() else "max"
    if limit.isdigit():
        available = min(available, int(limit))
    if available < LEAST_MEMORY:
        raise SiteError(
            f"{format_bytes(available)} of memory are available, at least"
            f" {format_bytes(LEAST_MEMORY)} are needed; end other programs or raise the limit"
        )
    return f"{format_bytes(available)} available"


def _check_gpu(_: Path) -> str:
    import torch

    if not torch.cuda.is_available():
        return "none; training uses the processors"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _check_policy(site: Path) -> str:
    return f"allows {describe_allowed(open_custody(site).policy)}"


def _check_ledger(site: Path) -> str:
    custody = open_custody(site)
    raise_first(verify_ledger(site / LEDGER_FOLDER, public_key=custody.identity.public_key.hex()))
    balance, created = custody.ledger.compute_balance(), custody.ledger.created
    if balance.left <= 0:
        raise SiteError(
            f"nothing is left of the lifetime budget, epsilon {created.epsilon:g} for one"
            f" {created.unit}; see fedtrain ledger budget {site / LEDGER_FOLDER}"
        )
    return (
        f"holds; {balance.left / balance.total:.1%} of the lifetime budget are left (epsilon"
        f" {created.epsilon:g} at delta {created.delta:g} for one {created.unit}; reserved"
        f" {balance.reserved / UNITS_PER_ONE:.4g}, spent {balance.spent / UNITS_PER_ONE:.4g} of"
        f" {balance.total / UNITS_PER_ONE:.4g})"
    )


def _check_data(site: Path) -> str:
    path = load_settings(site).data_path
    if not path:
        return "agent.toml names no data_path: a run that reads files will be refused"
    if not Path(path).exists() or not os.access(path, os.R_OK):
        raise DataError(
            f"data_path = {path!r} of agent.toml cannot be read by this user; correct it"
        )
    return f"{path} is there; name a scenario to compare it with: --scenario FILE"
