"""Secure aggregation as a grid: cohort in, one reply with the sum out.

`SecureGrid` decorates any grid. A strategy's train or evaluate messages go in; the rounds of the
protocol run with the cohort; out comes one reply that carries the survivors' weighted average, or
metric sums, or none where the round is void. Strategies that need an average only work unchanged.

Shapes: d parameters, m elements of the encoded vector.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedtrain.aggregation import (
    build_evaluation_encoding,
    build_training_encoding,
    decode_evaluation,
    decode_training,
    get_max_weight,
    name_run,
)
from fedtrain.config import Config, to_canonical
from fedtrain.params import Vector
from fedtrain.protocol import (
    ARRAYS,
    EVALUATION,
    METRICS,
    PARAMETERS,
    PREPARATION_TEXT,
    PROXIMAL_MU,
    SERVER_ROUND,
    TEST_SUMS,
    TRAIN_LOSS,
    TRAINING,
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
from fedtrain.secagg.policy import compute_default_threshold
from fedtrain.secagg.roster import compute_roster_digest

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
        threads: int = 1,
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
        self.last: SecureRound | None = None
        self._transcript: list[str] = []

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
        threshold = self._section.threshold or compute_default_threshold(len(cohort))
        self.last = SecureRound(purpose, cohort, threshold)
        if len(cohort) < self._section.min_cohort:  # a small Poisson cohort: nobody is asked
            self.last.void = (
                f"a cohort of {len(cohort)} is below min_cohort = {self._section.min_cohort}"
            )
            self.last.declined = set(cohort)
            return []
        exchanger = Exchanger(self._grid, self._nodes, content, secure=self.last, timeout=timeout)
        vector: Vector = read_array(content.array_records[ARRAYS], PARAMETERS, dtype="float32")
        encoding = self._build_encoding(purpose, len(vector), len(cohort))
        try:
            if self._section.mode == "protocol":
                total = self._run_protocol(exchanger, vector, encoding)
            else:
                total = self._add_plainly(exchanger, encoding)
        except RoundVoidError as error:
            log.warning("secure_sum_void purpose=%s reason=%s", purpose, error)
            self.last.void = str(error)
            return []
        finally:
            self.last.bytes_up, self.last.bytes_down = exchanger.bytes_up, exchanger.bytes_down
            self.last.declined = exchanger.declined
        survivors = len(self.last.survivors)
        reply = self._decode(purpose, encoding, total, survivors=survivors, start=vector)
        return [Message(reply, reply_to=messages[0])]

    def _build_encoding(self, purpose: str, size: int, cohort: int) -> VectorEncoding:
        if purpose == TRAINING:
            return build_training_encoding(self._config, size=size, cohort=cohort)
        return build_evaluation_encoding(self._config, classes=self._classes, cohort=cohort)

    def _decode(
        self,
        purpose: str,
        encoding: VectorEncoding,
        total: Words,
        *,
        survivors: int,
        start: Vector,
    ) -> RecordDict:
        """Return the content of the one reply, as strategies and the evaluation read it."""
        if purpose == EVALUATION:
            validation, test = decode_evaluation(encoding, total, survivors=survivors)
            sums = {VALIDATION_SUMS: validation, TEST_SUMS: test}
            return RecordDict({ARRAYS: hold(sums), METRICS: MetricRecord({WEIGHT: 1})})
        result = decode_training(
            encoding, total, survivors=survivors, max_weight=get_max_weight(self._config)
        )
        metrics = MetricRecord({WEIGHT: result.weight, TRAIN_LOSS: result.train_loss})
        return RecordDict({ARRAYS: hold({PARAMETERS: start + result.average}), METRICS: metrics})

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
            ),
            round=int(record[SERVER_ROUND]),  # type: ignore[arg-type]
            attempt=0,
            roster_digest=compute_roster_digest(self._roster),
            config_digest=bytes.fromhex(self._digest),
            model_digest=hashlib.sha256(vector.tobytes()).digest(),
            cohort=last.cohort,
            threshold=last.threshold,
            length=encoding.length,
            ring_bits=encoding.ring_bits,
            neighbours=plan.neighbours,
        )

    def take_transcript(self) -> list[str]:
        """Return the transcript's lines since they were last taken."""
        taken, self._transcript = self._transcript, []
        return taken

    def get_last(self) -> SecureRound:
        """Return what is known of the last sum."""
        if self.last is None:
            raise RuntimeError("no secure sum was begun")
        return self.last
