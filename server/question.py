"""A run that asks the sites for statistics and trains nothing: one secure sum, and its result.

A sum that was begun is gone on with like a round: after a restart of the coordinator its sites'
replies are there, after a stop a new attempt begins, in which a site that signed the last one takes
no part. What each site answers stays the same.
"""

import logging
import time
from typing import Any

from flwr.serverapp import Grid

from fedtrain.config import Config
from fedtrain.errors import RunFailedError
from fedtrain.plan import make_entry
from fedtrain.protocol import QUESTION_ROUND
from fedtrain.runs import RunDirectory
from fedtrain.secagg.roster import PinnedRoster
from fedtrain.secagg.simulated import describe_roster
from fedtrain.statistics.plan import build_asked_plan
from fedtrain.statistics.result import RESULT_FILE, StatisticsResult, make_result

from .draws import Draws
from .rounds import Observer
from .setup import Gathered, choose_roster, gather
from .statistics import Summed, sum_statistics

log = logging.getLogger("fedtrain.server")


def ask_sites(
    grid: Grid,
    config: Config,
    *,
    run_id: str,
    draws: Draws | None = None,
    roster: PinnedRoster | None = None,
    attempt: int = 0,
) -> tuple[Gathered, PinnedRoster, Summed]:
    """Ask all sites of a grid what a config asks, and sum their answers.

    Args:
        grid: Where the sites are.
        config: The resolved config, with `[statistics]`.
        run_id: The run's identifier; sites that keep a budget refuse a run without one.
        draws: Where the coordinator's draws come from; by default a simulation's, from the seed.
        roster: Of real sites, signed by their federation's root.
        attempt: Number of the attempt; higher in each sitting of a run.

    Returns:
        The sites, the roster that they signed under, and the sum.

    Raises:
        RunFailedError: Too few sites take part, or there is no sum.
        ConfigError: A column has no public bounds, or noise and ring do not go together.
        DataError: A site's data is of another form than the others'.
    """
    draws = draws or Draws.from_seed(config.run.seed)
    gathered = gather(grid, config, run_id=run_id)
    chosen = choose_roster(config, gathered, draws=draws, roster=roster)
    if chosen is None:
        raise RunFailedError("statistics need secure_aggregation.mode = 'protocol'; set it")
    summed = sum_statistics(
        grid,
        config,
        build_asked_plan(config, gathered.public),
        names=gathered.names,
        roster=chosen.signed,
        draws=draws,
        run_id=run_id,
        attempt=attempt,
        round=QUESTION_ROUND,
    )
    return gathered, chosen, summed


def run_question(
    grid: Grid,
    run: RunDirectory,
    observer: Observer | None = None,
    *,
    draws: Draws | None = None,
    roster: PinnedRoster | None = None,
) -> None:
    """Ask what a run's config asks, and write the result into its directory.

    Args:
        grid: Where the sites are.
        run: The run directory.
        observer: Is told how it goes.
        draws: As `ask_sites`.
        roster: As `ask_sites`.

    Raises:
        FedtrainError: There is no sum; `state.json` says why.
    """
    if run.state.round < QUESTION_ROUND:
        _ask(grid, run, observer, draws=draws, roster=roster)
    run.finish("finished")


def _ask(
    grid: Grid,
    run: RunDirectory,
    observer: Observer | None,
    *,
    draws: Draws | None,
    roster: PinnedRoster | None,
) -> None:
    started, config = time.perf_counter(), run.config
    simulated = draws is None or draws.simulated
    gathered, pinned, summed = ask_sites(
        grid,
        config,
        run_id=run.state.run_id,
        draws=draws,
        roster=roster,
        attempt=0 if simulated else run.state.sittings,
    )
    if observer is not None:
        observer.on_start(rounds=QUESTION_ROUND, done=0, sites=len(gathered.members))
    result = read_result(config, summed)
    run.write_setting(
        sites=len(gathered.members),
        accountant=None if result.cost is None else result.cost.accountant,
    )
    run.write_json("roster.json", describe_roster(pinned))
    run.write_json(RESULT_FILE, result.to_json())
    seconds = time.perf_counter() - started
    metrics = _describe_sum(summed, result) | {"seconds": round(seconds, 6)}
    run.commit(
        round=QUESTION_ROUND,
        arrays={},
        metrics=metrics,
        ledger=_list_entries(summed),
        transcript=summed.transcript,
        seconds=seconds,
        left={member.name: QUESTION_ROUND for member in gathered.members if member.refusal},
    )
    log.info("statistics_summed survivors=%d of=%d", summed.survivors, len(gathered.members))
    if observer is not None:
        observer.on_round(metrics)


def read_result(config: Config, summed: Summed) -> StatisticsResult:
    """Return what a sum tells, with what it cost a record; nothing of too few records."""
    section = config.statistics
    if section is None:
        raise RunFailedError("the config asks for no statistics; add a section [statistics]")
    return make_result(
        summed.plan,
        summed.sums,
        sites=summed.survivors,
        cost=summed.layout.compute_cost(config, delta=section.target_delta),
        noise_stddev=summed.layout.compute_noise_stddev(summed.survivors),
        min_records=section.min_records,
    )


def _describe_sum(summed: Summed, result: StatisticsResult) -> dict[str, Any]:
    secure = summed.secure
    metrics: dict[str, Any] = {
        "round": QUESTION_ROUND,
        "cohort": len(secure.cohort),
        "survivors": summed.survivors,
        "bytes_up": secure.bytes_up,
        "bytes_down": secure.bytes_down,
        "threshold": secure.threshold,
    }
    if result.cost is not None:
        metrics |= {"delta": result.cost.delta, "epsilon": result.cost.epsilon}
    return metrics


def _list_entries(summed: Summed) -> list[str]:
    """Return a line of each site that was asked: one that fell silent may have answered."""
    secure, share = summed.secure, summed.layout.share
    lines = []
    for site in secure.cohort:
        entry = secure.entries.get(site)
        if entry is None:
            if site in secure.declined:
                continue
            entry = make_entry(
                None, site=site, round=QUESTION_ROUND, update_digest=None, share=share
            )
        lines.append(entry.to_json())
    return lines
