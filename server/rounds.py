"""The round loop, over the public hooks of Flower's strategies.

A round: draw the cohort, train, fold, let the strategy make the next model, evaluate, commit.
`Strategy.start` is not used: it keeps everything in memory, begins at round 1 always, and calls a
run without a single reply a success.

Shapes: d is the length of the flat parameter vector.
"""

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedtrain.canonical import to_canonical
from fedtrain.data.shards import Split
from fedtrain.errors import RunFailedError
from fedtrain.evaluation_parts import list_parts
from fedtrain.params import ModelState, Vector, compute_vector_digest
from fedtrain.plan import build_site_plan, sends_metrics
from fedtrain.protocol import (
    ARRAYS,
    CONTROL,
    GRADIENT_NORM,
    PARAMETERS,
    PREPARATION_TEXT,
    RATE_FACTOR,
    SERVER_ROUND,
    TRAIN_LOSS,
    UPDATE_NORM,
)
from fedtrain.runs import RunDirectory
from fedtrain.training.local import LocalTrainer
from fedtrain.training.measures import build_measure
from fedtrain.training.optimisers import MAX_NORM
from fedtrain.training.schedules import has_stalled, read_schedule

from .cohort import draw_cohort
from .collect import Tally, fold, sift, sift_sum
from .evaluation import Evaluation, collect_evaluation
from .flower import CohortGrid, exchange, read_array, to_array_record
from .next_model import NextModel
from .secure import SecureGrid
from .setup import Member, Setting
from .spending import Spending
from .strategies import (
    build_strategy,
    check_cohort,
    needs_average_only,
    read_state,
    read_vector,
    restore_state,
)

log = logging.getLogger("fedtrain.server")

Metrics = dict[str, Any]  # flat: numbers, and why a round is void


class Observer(Protocol):
    """Is told how a run goes."""

    def on_start(self, *, rounds: int, done: int, sites: int) -> None:
        """The rounds begin; `done` of them are committed already."""

    def on_round(self, metrics: Metrics) -> None:
        """A round is committed."""


@dataclass(frozen=True)
class Trained:
    """What the training part of a round gave."""

    vector: Vector
    metrics: Metrics
    ledger: list[str]


class Rounds:
    """Runs the rounds of one run from its last commit to its end."""

    def __init__(
        self,
        grid: Grid,
        run: RunDirectory,
        setting: Setting,
        *,
        central_test: Split | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._grid = grid
        self._run = run
        self._config = run.config
        self._setting = setting
        self._central_test = central_test
        self._observer = observer
        self._state = ModelState(setting.model)
        refused = {m.name: run.state.round + 1 for m in setting.members if m.refusal}
        self._left = refused | run.state.left
        self._names = {member.node_id: member.name for member in setting.members}
        self._order = {member.node_id: member.index for member in setting.members}
        self._base = setting.base | {PREPARATION_TEXT: to_canonical(setting.preparation.to_json())}
        self._strategy = build_strategy(
            self._config.federation,
            learning_rate=self._config.training.learning_rate,
            steps=self._config.training.local_steps or 1,
            sites=len(setting.members),
        )
        self._next_model = NextModel(self._config, self._state.layout)
        site_plan = build_site_plan(self._config)
        self._clip = None if site_plan is None else site_plan.make_adaptive_clip()
        self._secure = self._make_secure_grid()
        self._folds = needs_average_only(self._config.federation.strategy)
        self._spending = Spending(self._config, [member.name for member in setting.members])
        self._trainer: LocalTrainer | None = None
        self._losses: list[float] = []
        outputs = len(setting.preparation.label_names)
        self._measure = build_measure(self._config, classes=outputs)
        check_cohort(self._config.federation, self._largest_cohort())

    def run(self) -> None:
        """Run every round that is not committed yet.

        Raises:
            RunFailedError: The global model is no longer finite.
            RunDirectoryError: A commit cannot be written.
        """
        vector = self._restore()
        rounds, done = self._config.federation.rounds, self._run.state.round
        if self._observer is not None:
            self._observer.on_start(rounds=rounds, done=done, sites=len(self._setting.members))
        for round_ in range(done + 1, rounds + 1):
            if self._has_stalled():
                log.info("stopped_early round=%d", round_ - 1)
                return
            vector = self._run_round(round_, vector)

    def _restore(self) -> Vector:
        """Return the model of the last commit, making the first commit where there is none."""
        if self._run.state.checkpoint is None:
            vector = self._state.read()
            self._run.commit(round=0, arrays={PARAMETERS: vector}, left=self._left)
            return vector
        arrays = self._run.load_checkpoint()
        restore_state(self._strategy, arrays)
        if self._clip is not None:
            norm = float(arrays[UPDATE_NORM][0])
            self._clip = replace(self._clip, max_update_norm=norm)
        self._spending.restore(self._run.read_ledger())
        self._losses = [line["val_loss"] for line in self._run.read_metrics() if "val_loss" in line]
        return arrays[PARAMETERS]

    def _has_stalled(self) -> bool:
        """Say whether the validation loss has not fallen for `federation.patience` evaluations."""
        patience = self._config.federation.patience
        return patience is not None and has_stalled(self._losses, patience)

    def _run_round(self, round_: int, vector: Vector) -> Vector:
        started = time.perf_counter()
        trained = self._train(round_, vector)
        metrics: Metrics = {"round": round_} | trained.metrics
        evaluation = self._evaluate(round_, trained.vector)
        metrics |= evaluation.metrics
        metrics["bytes_up"] += evaluation.bytes_up
        metrics["bytes_down"] += evaluation.bytes_down
        metrics |= self._spending.describe(round_)
        seconds = time.perf_counter() - started
        metrics["seconds"] = round(seconds, 6)
        if evaluation.metrics or round_ == self._config.federation.rounds:
            sites = self._spending.describe_sites(round_, evaluation.sites)
            self._run.write_json("sites.json", sites)
        if evaluation.confusion is not None:
            names = list(self._setting.preparation.label_names)
            matrix = {"round": round_, "classes": names, "test": evaluation.confusion}
            self._run.write_json("confusion.json", matrix)
        self._run.commit(
            round=round_,
            arrays={PARAMETERS: trained.vector} | read_state(self._strategy) | self._save_clip(),
            metrics=metrics,
            ledger=trained.ledger,
            transcript=[] if self._secure is None else self._secure.take_transcript(),
            seconds=seconds,
            best_loss=self._find_best(metrics),
            left=self._left,
        )
        if "val_loss" in metrics:
            self._losses.append(metrics["val_loss"])
        log.info("round_committed %s", " ".join(describe_line(metrics)))
        if self._observer is not None:
            self._observer.on_round(metrics)
        return trained.vector

    def _train(self, round_: int, vector: Vector) -> Trained:
        """Return the next global model, or the old one where the round is void."""
        federation = self._config.federation
        cohort = draw_cohort(
            self._list_present(),
            federation,
            seed=self._config.run.seed,
            round=round_,
            draws=self._setting.draws,
        )
        messages = self._configure(round_, vector, cohort)
        shown = self._describe_control(messages)
        tally, kept = Tally(), list[Message]()
        if messages:
            collect = self._collect if self._secure is None else self._collect_sum
            kept = collect(messages, tally, round_=round_, size=len(vector))
        aggregated, train_loss = None, None
        if kept and tally.survivors >= federation.min_survivors:
            with np.errstate(over="ignore", invalid="ignore"):  # checked below
                aggregated, train_loss = self._strategy.aggregate_train(round_, kept)
        metrics: Metrics = {
            "cohort": len(cohort),
            "survivors": tally.survivors,
            "bytes_up": tally.bytes_up,
            "bytes_down": tally.bytes_down,
        } | self._describe_secure(messages)
        metrics |= shown
        if train_loss is not None and TRAIN_LOSS in train_loss:
            metrics["train_loss"] = float(train_loss[TRAIN_LOSS])  # type: ignore[arg-type]
        if train_loss is not None and GRADIENT_NORM in train_loss:
            logarithm = float(train_loss[GRADIENT_NORM])  # type: ignore[arg-type]
            metrics["gradient_norm"] = 10.0 ** min(logarithm, math.log10(MAX_NORM))
        if self._clip is not None:
            metrics["update_norm"] = self._clip.max_update_norm
        if self._follows_losses():
            metrics["rate_factor"] = self._compute_plateau_factor()
        self._note_left(round_, tally.left)
        asked = [member.name for member in cohort] if messages else []
        last = None if self._secure is None or not messages else self._get_secure().get_last()
        ledger = self._spending.record(round_, asked, tally, share=last.share if last else None)
        if aggregated is None:
            log.warning("round_void round=%d survivors=%d", round_, tally.survivors)
            return Trained(vector, metrics, ledger)
        if self._clip is not None and last is not None and last.below is not None:
            self._clip = self._clip.update(last.below)
        result = self._next_model.make(
            read_vector(aggregated), vector, round_=round_, losses=self._losses
        )
        return Trained(result, metrics, ledger)

    def _follows_losses(self) -> bool:
        """Say whether the sites' learning rate follows from validation losses."""
        return self._config.training.schedule == "plateau"

    def _compute_plateau_factor(self) -> float:
        """Return what the losses so far multiply the sites' learning rate by."""
        schedule = read_schedule(self._config.training)
        return 1.0 if schedule is None else schedule.compute_plateau_factor(self._losses)

    def _describe_control(self, messages: list[Message]) -> Metrics:
        """Return the digest of the control variate that goes out beside the model, if one does."""
        if not messages or CONTROL not in messages[0].content.array_records[ARRAYS]:
            return {}
        record = messages[0].content.array_records[ARRAYS]
        control: Vector = read_array(record, CONTROL, dtype="float32")
        return {"control": compute_vector_digest(control)}

    def _collect(
        self, messages: list[Message], tally: Tally, *, round_: int, size: int
    ) -> list[Message]:
        """Send train messages; return the replies that the strategy gets, folded if it folds."""
        federation = self._config.federation
        vectors = len(messages[0].content.array_records[ARRAYS])
        tally.bytes_down = 4 * size * len(messages) * vectors
        usable = sift(
            exchange(self._grid, messages, timeout=federation.round_timeout),
            tally,
            names=self._names,
            round_=round_,
            size=size,
            equal=federation.weighting == "equal",
            with_loss=sends_metrics(self._config),
            with_steps=federation.strategy == "FedNova",
        )
        if not self._folds:
            return [reply for reply, _ in usable]
        folded = fold(usable, size=size)
        return [folded] if folded is not None else []

    def _collect_sum(
        self,
        messages: list[Message],
        tally: Tally,
        *,
        round_: int,  # noqa: ARG002 - the protocol's messages name it
        size: int,
    ) -> list[Message]:
        """Send train messages by secure aggregation; return the one reply with the sum."""
        secure = self._get_secure()
        timeout = self._config.federation.round_timeout
        pairs = sift_sum(secure.send_and_receive(messages, timeout=timeout), size=size)
        kept = [reply for reply, _ in pairs]
        last = secure.get_last()
        tally.survivors = len(last.survivors) if kept else 0
        tally.entries = list(last.entries.values())
        tally.declined = last.declined - set(last.entries)
        tally.left = last.left
        tally.bytes_up, tally.bytes_down = last.bytes_up, last.bytes_down
        return kept

    def _describe_secure(self, messages: list[Message]) -> Metrics:
        """Return what the round's line says of its secure sum."""
        if self._secure is None or not messages:
            return {}
        last = self._get_secure().get_last()
        described: Metrics = {"threshold": last.threshold}
        if last.void is not None:
            described["void"] = last.void
        return described

    def _make_secure_grid(self) -> SecureGrid | None:
        if self._config.secure_aggregation.mode == "off":
            return None
        simulated = self._setting.draws.simulated
        return SecureGrid(
            self._grid,
            self._config,
            names=self._names,
            roster=self._setting.get_roster().signed,
            digest=self._run.state.digest,
            classes=len(self._setting.preparation.label_names),
            threads=os.cpu_count() or 1,
            draws=self._setting.draws,
            run_id="" if simulated else self._run.state.run_id,
            # A simulation repeats an interrupted round to the byte; real sites draw new keys.
            attempt=0 if simulated else self._run.state.sittings,
        )

    def _get_secure(self) -> SecureGrid:
        if self._secure is None:
            raise RuntimeError("this run has no secure aggregation")
        return self._secure

    def _list_present(self) -> list[Member]:
        """Return the sites that take part from now on.

        Raises:
            RunFailedError: Too few are left for a round.
        """
        present = [member for member in self._setting.members if member.name not in self._left]
        section = self._config.secure_aggregation
        least = 1 if section.mode == "off" else section.min_cohort
        if len(present) < least:
            raise RunFailedError(
                f"{len(present)} of {len(self._setting.members)} sites take part, {least} are"
                " needed; policy or budget of the others refused (log.txt)"
            )
        return present

    def _note_left(self, round_: int, names: set[str]) -> None:
        for name in sorted(names):
            log.warning("site_left site=%s round=%d", name, round_)
            self._left[name] = round_

    def _configure(self, round_: int, vector: Vector, cohort: Sequence[Member]) -> list[Message]:
        """Return the strategy's train messages, in the members' order."""
        if not cohort:
            return []
        messages = self._strategy.configure_train(
            round_,
            to_array_record(vector),
            self._make_record(),
            CohortGrid(self._grid, [member.node_id for member in cohort]),
        )
        return sorted(messages, key=lambda m: self._order[m.metadata.dst_node_id])

    def _evaluate(self, round_: int, vector: Vector) -> Evaluation:
        """Evaluate the global model at the sites and, where there is one, on the central test."""
        section, rounds = self._config.federation, self._config.federation.rounds
        every = section.evaluate_every
        if round_ != rounds and (every == 0 or round_ % every):
            return Evaluation()
        data = self._config.data
        result = Evaluation()
        if sends_metrics(self._config) and (data.validation_fraction or data.test_fraction):
            config = ConfigRecord(dict(self._base))
            config[SERVER_ROUND] = round_
            nodes = [member.node_id for member in self._list_present()]
            messages = self._strategy.configure_evaluate(
                round_, to_array_record(vector), config, CohortGrid(self._grid, nodes)
            )
            ordered = sorted(messages, key=lambda m: self._order[m.metadata.dst_node_id])
            measure, parts = self._measure, list_parts(self._config)
            if self._secure is None:
                replies = exchange(self._grid, ordered, timeout=section.round_timeout)
                result = collect_evaluation(
                    replies, names=self._names, measure=measure, parts=parts
                )
                result.bytes_down = vector.nbytes * len(ordered)
            else:
                sums = self._secure.send_and_receive(ordered, timeout=section.round_timeout)
                result = collect_evaluation(sums, names=None, measure=measure, parts=parts)
                last = self._secure.get_last()
                result.bytes_up, result.bytes_down = last.bytes_up, last.bytes_down
        if self._central_test is not None:
            if self._trainer is None:
                self._trainer = LocalTrainer(self._setting.model, self._config, private=False)
            own = self._measure.describe(self._trainer.evaluate(vector, self._central_test))
            result.metrics |= {f"test_{name}": value for name, value in own.items()}
        return result

    def _make_record(self) -> ConfigRecord:
        """Return the config record of a round's train messages."""
        record = ConfigRecord(dict(self._base))
        if self._clip is not None:
            record[UPDATE_NORM] = self._clip.max_update_norm
        if self._follows_losses():
            record[RATE_FACTOR] = self._compute_plateau_factor()
        return record

    def _save_clip(self) -> dict[str, NDArray[Any]]:
        return {} if self._clip is None else {UPDATE_NORM: np.array([self._clip.max_update_norm])}

    def _find_best(self, metrics: Mapping[str, float]) -> float | None:
        """Return this round's validation loss if it is the best so far and models are chosen."""
        loss = metrics.get("val_loss")
        if self._config.federation.select != "best" or loss is None:
            return None
        best = self._run.state.best_loss
        return loss if best is None or loss < best else None

    def _largest_cohort(self) -> int:
        federation, sites = self._config.federation, len(self._setting.members)
        return min(federation.sites_per_round or sites, sites)


def describe_line(metrics: Mapping[str, Any]) -> list[str]:
    """Return a round's line as `key=value` for the log."""
    return [
        f"{k}={v:.6g}" if isinstance(v, int | float) else f"{k}={v}" for k, v in metrics.items()
    ]
