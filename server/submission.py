"""From a scenario that an operator submits to a config that sites can be asked to run."""

import json
from collections.abc import Collection, Sequence

from fedtrain.config import Config, build_config, parse_config
from fedtrain.errors import ConfigError
from fedtrain.resolution import resolve

from .strategies import build_strategy, check_cohort

MOST_SCENARIO = 2**20  # characters


def settle_scenario(
    scenario: str, overrides: Sequence[str], *, name: str, sites: Collection[str]
) -> Config:
    """Return the config that all sites of a run are asked for; no data is opened here.

    Args:
        scenario: TOML text.
        overrides: Each "section.key=value".
        name: Of the file, for messages.
        sites: Names of the run's sites.

    Raises:
        ConfigError: It cannot run with these sites.
    """
    if len(scenario) > MOST_SCENARIO:
        raise ConfigError(f"{name}: {len(scenario)} characters, {MOST_SCENARIO} at most")
    parsed = parse_config(scenario, overrides, name=name)
    asked = parsed.partition.sites if "partition" in parsed.model_fields_set else None
    if asked is not None and asked != len(sites):
        raise ConfigError(
            f"{name}: partition.sites = {asked}, but the run has {len(sites)} sites"
            f" ({', '.join(sorted(sites))[:200]}); remove the key, or name its sites with --sites"
        )
    partition = parsed.partition.model_copy(update={"sites": len(sites)})
    tree = json.loads(
        parsed.model_copy(update={"partition": partition}).model_dump_json(exclude_none=True)
    )
    config = resolve(build_config(tree, name=name))
    federation = config.federation
    build_strategy(federation, learning_rate=config.training.learning_rate)
    check_cohort(federation, min(federation.sites_per_round or len(sites), len(sites)))
    if federation.min_survivors > len(sites):
        raise ConfigError(
            f"federation.min_survivors = {federation.min_survivors} is above the number of sites,"
            f" {len(sites)}; lower it"
        )
    return config


def choose_sites(asked: Sequence[str], members: Collection[str]) -> tuple[str, ...]:
    """Return the sites of a run: those that are asked for, by default all of the membership.

    Raises:
        ConfigError: One is no site of the federation, or is named twice; or there is none.
    """
    strangers = sorted(set(asked) - set(members))
    if strangers:
        raise ConfigError(
            f"{strangers[0][:80]!r} is no site of this federation; it has"
            f" {', '.join(sorted(members))[:300] or 'none'}"
        )
    if len(set(asked)) < len(asked):
        raise ConfigError("a site is named twice in --sites; name each once")
    chosen = tuple(sorted(asked or members))
    if not chosen:
        raise ConfigError("the federation has no site yet; approve one and install the membership")
    return chosen
