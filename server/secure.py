"""Secure aggregation as a grid: cohort in, one reply with the sum out.

`SecureGrid` decorates any grid. A strategy's train or evaluate messages go in; the rounds of the
protocol run with the cohort; out comes one reply that carries the survivors' weighted average, or
metric sums, or none where the round is void. Strategies that need an average only work unchanged.

Shapes: d parameters, m elements of the encoded vector.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedtrain.aggregation import (
    build_evaluation_encoding,
    compute_model_digest,
    decode_parts,
    name_run,
)
from fedtrain.canonical import to_canonical
from fedtrain.config import Config
from fedtrain.params import Vector
from fedtrain.plan import get_threshold
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.protocol import (
    ARRAYS,
    CONFIG,
    CONTROL,
    EVALUATION,
    GRADIENT_NORM,
    LOCAL_STEPS,
    METRICS,
    PARAMETERS,
    PART_SUMS,
    PREPARATION_TEXT,
    PROXIMAL_MU,
    RATE_FACTOR,
    SERVER_ROUND,
    TEST_SUMS,
    TRAIN_LOSS,
    TRAINING,
    UPDATE_NORM,
    VALIDATION_SUMS,
    WEIGHT,
)
from fedtrain.secagg.coordinator import CoordinatorSession
from fedtrain.secagg.encoding import VectorEncoding
from fedtrain.secagg.faults import RoundVoidError
from fedtrain.secagg.graph import plan_graph
from fedtrain.secagg.masks import Words
from fedtrain.secagg.messages import (
    RoundContext,
    SignedRoster,
)
from fedtrain.secagg.roster import compute_roster_digest
from fedtrain.training_vector import TrainingVector

from .draws import Draws
from .flower import CohortGrid, hold, read_array
from .stages import Exchanger, SecureRound

log = logging.getLogger("fedtrain.server")


class SecureGrid(CohortGrid):
    """A grid that answers train and evaluate messages with one reply: the secure sum.

    Attributes:
        last: What is known of the last sum.
    """

    def __init__(
        self,
        grid: Grid,
        config: Config,
        *,
        names: dict[int, str],
        roster: SignedRoster,
        digest: str,
        classes: int,
        draws: Draws,
        threads: int = 1,
        run_id: str = "",
        attempt: int = 0,
    ) -> None:
        """Decorate a grid.

        Args:
            grid: Where the sites are.
            config: The resolved config.
            names: Site name of each node id.
            roster: Signed by the federation's root.
            digest: Of the config.
            classes: C.
            threads: How many remove masks.
            draws: Where the coordinator's noise comes from.
            run_id: The run's identifier, in every sum's name; empty in a simulation.
            attempt: Number of every sum's attempt: higher in each sitting of a run.
        """
        super().__init__(grid, list(names))
        self._config = config
        self._section = config.secure_aggregation
        self._names = names
        self._nodes = {name: node for node, name in names.items()}
        self._roster = roster
        self._digest = digest
        self._classes = classes
        self._threads = threads
        self._draws = draws
        self._run_id = run_id
        self._attempt = attempt
        self.last: SecureRound | None = None
        self._transcript: list[str] = []
        self._round = 0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Return an iterator over one reply, or none; queries pass through."""
        ready = list(messages)
        kind = ready[0].metadata.message_type if ready else ""
        if kind not in (TRAINING, EVALUATION):
            return iter(self._grid.send_and_receive(ready, timeout=timeout))
        return iter(self._aggregate(ready, kind, timeout))

    def _aggregate(
        self, messages: Sequence[Message], purpose: str, timeout: float | None
    ) -> list[Message]:
        content = messages[0].content
        cohort = tuple(sorted(self._names[m.metadata.dst_node_id] for m in messages))
        threshold = get_threshold(self._config, len(cohort))
        self.last = SecureRound(purpose, cohort, threshold)
        if len(cohort) < self._section.min_cohort:  # a small Poisson cohort: nobody is asked
            self.last.void = (
                f"a cohort of {len(cohort)} is below min_cohort = {self._section.min_cohort}"
            )
            self.last.declined = set(cohort)
            return []
        self._round = int(content.config_records[CONFIG][SERVER_ROUND])  # type: ignore[arg-type]
        exchanger = Exchanger(self._grid, self._nodes, content, secure=self.last, timeout=timeout)
        vector: Vector = read_array(content.array_records[ARRAYS], PARAMETERS, dtype="float32")
        clip = _read_clip(exchanger.record)
        layout = None
        if purpose == TRAINING:
            layout = TrainingVector(
                self._config, size=len(vector), cohort=len(cohort), clip=clip, round=self._round
            )
            self.last.share = layout.share
            encoding = layout.encoding
        else:
            encoding = build_evaluation_encoding(
                self._config, classes=self._classes, cohort=len(cohort)
            )
        try:
            if self._section.mode == "protocol":
                total = self._run_protocol(exchanger, _read_shown(content, vector), encoding)
            else:
                total = self._add_plainly(exchanger, encoding)
        except RoundVoidError as error:
            log.warning("secure_sum_void purpose=%s reason=%s", purpose, error)
            self.last.void = str(error)
            return []
        finally:
            self.last.bytes_up, self.last.bytes_down = exchanger.bytes_up, exchanger.bytes_down
            self.last.declined = exchanger.declined
        if layout is not None:
            reply = self._decode_training(layout, total, vector)
        else:
            reply = self._decode_evaluation(encoding, total)
        return [Message(reply, reply_to=messages[0])]

    def _decode_training(self, layout: TrainingVector, total: Words, start: Vector) -> RecordDict:
        """Return the content of the one reply, as strategies read it."""
        last = self.get_last()
        noise = self._make_generator()
        result = layout.decode(total, survivors=len(last.survivors), noise=noise)
        last.below = result.below
        metrics: dict[str, int | float | list[int] | list[float]] = {WEIGHT: result.weight}
        if result.train_loss is not None:
            metrics[TRAIN_LOSS] = result.train_loss
        if result.gradient_norm is not None:
            metrics[GRADIENT_NORM] = result.gradient_norm
        if result.steps is not None:
            metrics[LOCAL_STEPS] = result.steps
        arrays = hold({PARAMETERS: start + result.average})
        return RecordDict({ARRAYS: arrays, METRICS: MetricRecord(metrics)})

    def _decode_evaluation(self, encoding: VectorEncoding, total: Words) -> RecordDict:
        """Return the content of the one reply, as the evaluation reads it."""
        survivors = len(self.get_last().survivors)
        parts = decode_parts(encoding, total, survivors=survivors)
        sums = {VALIDATION_SUMS: parts.pop("validation"), TEST_SUMS: parts.pop("test")}
        sums |= {f"{PART_SUMS}{name}": flat for name, flat in parts.items()}
        return RecordDict({ARRAYS: hold(sums), METRICS: MetricRecord({WEIGHT: 1})})

    def _run_protocol(
        self, exchanger: "Exchanger", vector: Vector, encoding: VectorEncoding
    ) -> Words:
        """Run the five rounds of the protocol (Bonawitz et al. 2017, figure 4)."""
        last = self.get_last()
        context = self._make_context(exchanger.record, vector, encoding)
        session = CoordinatorSession(
            context,
            self._roster,
            threads=self._threads,
            dropout_share=self._section.dropout_share,
            corrupt_share=self._section.corrupt_share,
        )
        try:
            exchanger.run_stage("advertise", dict.fromkeys(last.cohort, context), session)
            listed = session.close_advertisements()
            sites = [one.site for one in listed.advertisements]
            exchanger.run_stage("share", dict.fromkeys(sites, listed), session)
            exchanger.run_stage("mask", session.close_shares(), session)
            offered = session.close_vectors()
            last.survivors = offered.survivors
            exchanger.run_stage("sign", dict.fromkeys(offered.survivors, offered), session)
            signatures = session.close_signatures()
            signers = [one.site for one in signatures.signatures]
            exchanger.run_stage("unmask", dict.fromkeys(signers, signatures), session)
            return session.finish()
        finally:
            self._transcript.append(to_canonical(session.transcript.to_record()))
            for fault in session.faults:
                log.warning(
                    "secure_fault site=%s reason=%s reporter=%s",
                    fault.site,
                    fault.reason,
                    fault.reporter,
                )

    def _add_plainly(self, exchanger: "Exchanger", encoding: VectorEncoding) -> Words:
        """Add up the encoded vectors themselves: the same sum, with nothing hidden."""
        last = self.get_last()
        total = np.zeros(encoding.length, encoding.dtype)
        survivors = []
        for name, words in exchanger.ask_plainly(encoding):
            np.add(total, words, out=total)
            survivors.append(name)
        if len(survivors) < last.threshold:
            raise RoundVoidError(
                "too-few-sites", f"{len(survivors)} sites are below the threshold {last.threshold}"
            )
        last.survivors = tuple(survivors)
        total &= total.dtype.type(2**encoding.ring_bits - 1)
        return total

    def _make_context(
        self, record: ConfigRecord, vector: Vector, encoding: VectorEncoding
    ) -> RoundContext:
        """Return all that the sites of this sum must see alike."""
        last, section = self.get_last(), self._section
        plan = plan_graph(
            len(last.cohort),
            dropout_share=section.dropout_share,
            corrupt_share=section.corrupt_share,
        )
        return RoundContext(
            federation=self._roster.roster.federation,
            run=name_run(
                self._digest,
                preparation_text=str(record[PREPARATION_TEXT]),
                proximal_mu=float(record.get(PROXIMAL_MU, 0.0)),  # type: ignore[arg-type]
                purpose=last.purpose,
                run_id=self._run_id,
            ),
            round=int(record[SERVER_ROUND]),  # type: ignore[arg-type]
            attempt=self._attempt,
            roster_digest=compute_roster_digest(self._roster),
            config_digest=bytes.fromhex(self._digest),
            model_digest=compute_model_digest(vector, _read_bound_number(record)),
            cohort=last.cohort,
            threshold=last.threshold,
            length=encoding.length,
            ring_bits=encoding.ring_bits,
            neighbours=plan.neighbours,
        )

    def _make_generator(self) -> SecureGenerator:
        """Return the source of the noise that hides a cohort's size."""
        return self._draws.make_generator("top up", self._round)

    def take_transcript(self) -> list[str]:
        """Return the transcript's lines since they were last taken."""
        taken, self._transcript = self._transcript, []
        return taken

    def get_last(self) -> SecureRound:
        """Return what is known of the last sum."""
        if self.last is None:
            raise RuntimeError("no secure sum was begun")
        return self.last


def _read_shown(content: RecordDict, vector: Vector) -> Vector:
    """Return what sites are shown: the model, and SCAFFOLD's control variate where there is one."""
    arrays = content.array_records[ARRAYS]
    if CONTROL not in arrays:
        return vector
    return np.stack([vector, read_array(arrays, CONTROL, dtype="float32")])


def _read_clip(record: ConfigRecord) -> float | None:
    """Return the round's adaptive clip, where there is one."""
    value = record.get(UPDATE_NORM)
    return float(value) if isinstance(value, int | float) else None


def _read_bound_number(record: ConfigRecord) -> float | None:
    """Return what of a round every mask key is bound to beside the model: its clip or rate."""
    value = record.get(UPDATE_NORM, record.get(RATE_FACTOR))
    return float(value) if isinstance(value, int | float) else None
