"""Secure aggregation as a grid: cohort in, one reply with the sum out.

`SecureGrid` decorates any grid. A strategy's train or evaluate messages go in; the rounds of the
protocol run with the cohort; out comes one reply that carries the survivors' weighted average, or
metric sums, or none where the round is void. Strategies that need an average only work unchanged.

Shapes: d parameters, m elements of the encoded vector.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedtrain.aggregation import (
    build_evaluation_encoding,
    build_training_encoding,
    decode_evaluation,
    decode_training,
    get_max_weight,
)
from fedtrain.config import Config, to_canonical
from fedtrain.errors import AuditError, PeerError
from fedtrain.params import Vector
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.protocol import (
    ARRAYS,
    CONFIG,
    EVALUATION,
    LEDGER_LINE,
    METRICS,
    NO_ANSWER,
    PARAMETERS,
    RELEASE,
    SECAGG,
    SECAGG_COHORT,
    SECAGG_MESSAGE,
    SECAGG_PURPOSE,
    SECAGG_REFUSED,
    SERVER_ROUND,
    TEST_SUMS,
    TRAIN_LOSS,
    TRAINING,
    VALIDATION_SUMS,
    WEIGHT,
    WORDS,
)
from fedtrain.secagg.codec import Message as SecureMessage
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.coordinator import CoordinatorSession
from fedtrain.secagg.encoding import VectorEncoding
from fedtrain.secagg.faults import RoundVoidError
from fedtrain.secagg.graph import plan_graph
from fedtrain.secagg.masks import Words
from fedtrain.secagg.messages import (
    Advertisement,
    EncryptedShares,
    MaskedVector,
    RoundContext,
    SignedRoster,
    SurvivorSignature,
    Unmasking,
)
from fedtrain.secagg.policy import compute_default_threshold
from fedtrain.secagg.roster import compute_roster_digest

from .collect import MAX_LEDGER_LINE
from .flower import CohortGrid, exchange, hold, read_array

log = logging.getLogger("fedtrain.server")


@dataclass
class SecureRound:
    """What is known of one secure sum, and no more.

    Attributes:
        purpose: TRAINING or EVALUATION.
        cohort: Sites asked.
        threshold: Survivors that the sum needed.
        survivors: Sites whose vectors are in it.
        void: Why there is no sum; None where there is one.
        declined: Sites that said in words that they take no part.
        entries: Ledger entries of the survivors.
        bytes_up: Payload from the sites.
        bytes_down: Payload to the sites.
    """

    purpose: str
    cohort: tuple[str, ...]
    threshold: int
    survivors: tuple[str, ...] = ()
    void: str | None = None
    declined: set[str] = field(default_factory=set)
    entries: dict[str, LedgerEntry] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0


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
        context = self._make_context(exchanger.round, vector, encoding)
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

    def _make_context(self, round_: int, vector: Vector, encoding: VectorEncoding) -> RoundContext:
        last, section = self.get_last(), self._section
        plan = plan_graph(
            len(last.cohort),
            dropout_share=section.dropout_share,
            corrupt_share=section.corrupt_share,
        )
        return RoundContext(
            federation=self._roster.roster.federation,
            run=f"{self._digest[:32]}/{last.purpose}",  # of a simulation: it repeats to the byte
            round=round_,
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


class Exchanger:
    """Sends the messages of one stage to sites and yields what they answer.

    Attributes:
        declined: Sites that answered in words that they take no part.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: dict[str, int],
        content: RecordDict,
        *,
        secure: SecureRound,
        timeout: float | None,
    ) -> None:
        """Prepare the stages of one sum.

        Args:
            grid: Where the sites are.
            nodes: Node id of each site.
            content: What the strategy wants to send: the global model and the config record.
            secure: Told of the ledger lines that come with vectors.
            timeout: Seconds that each stage may take.
        """
        self._grid = grid
        self._round = secure
        self._nodes = nodes
        self._names = {node: name for name, node in nodes.items()}
        self._content = content
        self._timeout = timeout
        self.round = int(content.config_records[CONFIG][SERVER_ROUND])  # type: ignore[arg-type]
        self.bytes_up = 0
        self.bytes_down = 0
        self.declined: set[str] = set()
        self._refused: list[tuple[str, str]] = []

    def run_stage(
        self, stage: str, messages: Mapping[str, SecureMessage], session: CoordinatorSession
    ) -> None:
        """Send each site its message of a stage; hand the answers to the session as they come.

        An answer that is no canonical message of its kind, speaks for another site, or that the
        session cannot use is logged and left out: its site counts as dropped from then on.
        """
        kind, receive = _find_receiver(stage, session)
        for name, reply in self._exchange(self._make_requests(stage, messages)):
            record = reply.content.config_records.get(SECAGG)
            data = record.get(SECAGG_MESSAGE) if record is not None else None
            try:
                if not isinstance(data, bytes):
                    raise PeerError("the reply holds no message of the protocol")
                answer = decode(data, kind)
                if answer.site != name:
                    raise PeerError(f"the message is in the name of {answer.site!r}")
                receive(answer)
            except PeerError as error:
                log.warning("secure_reply_dropped site=%s reason=%s", name, error)
                continue
            self.bytes_up += len(data)
            if stage == "mask":
                self._note_release(name, reply)
        for name, text in self._refused:
            reason, _, suspect = text.partition(" ")
            session.report_refusal(name, reason, suspect or None)
        self._refused = []

    def ask_plainly(self, encoding: VectorEncoding) -> Iterator[tuple[str, Words]]:
        """Ask for the encoded vectors themselves; yield each usable one with its site."""
        cohort = self._round.cohort
        record = ConfigRecord({SECAGG_PURPOSE: self._round.purpose, SECAGG_COHORT: len(cohort)})
        content = RecordDict(dict(self._content))
        content[SECAGG] = record
        size = self._count(content)
        requests = [self._make_request(name, "secagg_encode", content, size) for name in cohort]
        dtype = "uint16" if encoding.ring_bits <= 16 else "uint32"
        for name, reply in self._exchange(requests):
            try:
                words = read_array(_get_arrays(reply.content), WORDS, dtype=dtype)
                if words.shape != (encoding.length,):
                    raise PeerError(f"the vector has {words.shape}, not ({encoding.length},)")
            except PeerError as error:
                log.warning("secure_reply_dropped site=%s reason=%s", name, error)
                continue
            self.bytes_up += words.nbytes
            self._note_release(name, reply)
            yield name, words

    def _exchange(self, requests: Sequence[Message]) -> Iterator[tuple[str, Message]]:
        for reply in exchange(self._grid, requests, timeout=self._timeout or 3600.0):
            name = self._names[reply.metadata.src_node_id]
            if not reply.has_error():
                yield name, reply
                continue
            log.warning("secure_reply_missing site=%s reason=%s", name, reply.error.reason)
            if reply.error.code == SECAGG_REFUSED:
                self._refused.append((name, str(reply.error.reason)))
            if reply.error.code != NO_ANSWER[0]:
                self.declined.add(name)

    def _make_requests(self, stage: str, messages: Mapping[str, SecureMessage]) -> list[Message]:
        """Return the requests of a stage, in the sites' order; equal messages share a content."""
        contents: dict[int, tuple[RecordDict, int]] = {}
        requests = []
        for name in sorted(messages):
            message = messages[name]
            if id(message) not in contents:
                content = self._make_content(stage, message)
                contents[id(message)] = content, self._count(content)
            requests.append(self._make_request(name, f"secagg_{stage}", *contents[id(message)]))
        return requests

    def _make_content(self, stage: str, message: SecureMessage) -> RecordDict:
        """Return a stage's content; the model goes out with the announcement only."""
        data = bytes(encode(message))
        content = RecordDict({CONFIG: self._content.config_records[CONFIG]})
        content[SECAGG] = ConfigRecord({SECAGG_MESSAGE: data, SECAGG_PURPOSE: self._round.purpose})
        if stage == "advertise":
            content[ARRAYS] = self._content.array_records[ARRAYS]
        return content

    def _note_release(self, name: str, reply: Message) -> None:
        """Keep the ledger line of what a site sent."""
        entry = _read_release(reply, name)
        if entry is not None:
            self._round.entries[name] = entry

    def _make_request(self, name: str, action: str, content: RecordDict, size: int) -> Message:
        self.bytes_down += size
        return Message(content, dst_node_id=self._nodes[name], message_type=f"{TRAINING}.{action}")

    @staticmethod
    def _count(content: RecordDict) -> int:
        """Return a content's payload: the model, and the protocol's own message."""
        arrays = _get_arrays(content)
        size = 0
        if arrays is not None:
            array = arrays[PARAMETERS]
            size = int(np.prod(array.shape, dtype=np.int64)) * np.dtype(array.dtype).itemsize
        data = content.config_records[SECAGG].get(SECAGG_MESSAGE, b"")
        return size + (len(data) if isinstance(data, bytes) else 0)


def _find_receiver(
    stage: str, session: CoordinatorSession
) -> tuple[type[Any], Callable[[Any], None]]:
    """Return the kind of answer that a stage has, and what takes it."""
    receivers: dict[str, tuple[type[Any], Callable[[Any], None]]] = {
        "advertise": (Advertisement, session.receive_advertisement),
        "share": (EncryptedShares, session.receive_shares),
        "mask": (MaskedVector, session.receive_vector),
        "sign": (SurvivorSignature, session.receive_signature),
        "unmask": (Unmasking, session.receive_unmasking),
    }
    return receivers[stage]


def _get_arrays(content: RecordDict) -> ArrayRecord | None:
    record = content.get(ARRAYS)
    return record if isinstance(record, ArrayRecord) else None


def _read_release(reply: Message, name: str) -> LedgerEntry | None:
    record = reply.content.get(RELEASE)
    line = record.get(LEDGER_LINE) if isinstance(record, ConfigRecord) else None
    if not isinstance(line, str) or len(line) > MAX_LEDGER_LINE:
        return None
    try:
        entry = LedgerEntry.from_json(line)
    except AuditError:
        return None
    return entry if entry.site == name else None
