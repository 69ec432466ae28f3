"""The stages of one secure sum: what is sent to whom, and what is made of the answers."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedtrain.costs import count_payload
from fedtrain.errors import AuditError, PeerError
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.privacy.site_noise import NoiseShare
from fedtrain.protocol import (
    ARRAYS,
    CONFIG,
    LEDGER_LINE,
    REFUSED_FOR_GOOD,
    RELEASE,
    SECAGG,
    SECAGG_COHORT,
    SECAGG_MESSAGE,
    SECAGG_PURPOSE,
    SECAGG_REFUSED,
    TRAINING,
    UNSPOKEN,
    WORDS,
)
from fedtrain.secagg.codec import Message as SecureMessage
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.coordinator import CoordinatorSession
from fedtrain.secagg.encoding import VectorEncoding
from fedtrain.secagg.masks import Words
from fedtrain.secagg.messages import (
    Advertisement,
    EncryptedShares,
    MaskedVector,
    SurvivorSignature,
    Unmasking,
)

from .collect import MAX_LEDGER_LINE
from .flower import exchange, read_array

log = logging.getLogger("fedtrain.server")


@dataclass
class SecureRound:
    """What is known of one secure sum, and no more.

    Attributes:
        purpose: TRAINING, EVALUATION or STATISTICS.
        cohort: Sites asked.
        threshold: Survivors that the sum needed.
        survivors: Sites whose vectors are in it.
        void: Why there is no sum; None where there is one.
        declined: Sites that said in words that they take no part.
        left: Those of them whose policy or budget refuses the run from now on.
        entries: Ledger entries of the survivors.
        share: The noise that each site was to add; None without site-level privacy.
        below: Noised sum of the clipping bits; None where the clip does not adapt.
        bytes_up: Payload from the sites.
        bytes_down: Payload to the sites.
    """

    purpose: str
    cohort: tuple[str, ...]
    threshold: int
    survivors: tuple[str, ...] = ()
    void: str | None = None
    declined: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    entries: dict[str, LedgerEntry] = field(default_factory=dict)
    share: NoiseShare | None = None
    below: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0


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
        self.record = content.config_records[CONFIG]
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
        size = count_payload(content)
        requests = [self._make_request(name, "encode_plainly", content, size) for name in cohort]
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
            if reply.error.code not in UNSPOKEN:
                self.declined.add(name)
            if reply.error.code in REFUSED_FOR_GOOD:
                self._round.left.add(name)

    def _make_requests(self, stage: str, messages: Mapping[str, SecureMessage]) -> list[Message]:
        """Return the requests of a stage, in the sites' order; equal messages share a content."""
        contents: dict[int, tuple[RecordDict, int]] = {}
        requests = []
        for name in sorted(messages):
            message = messages[name]
            if id(message) not in contents:
                content = self._make_content(stage, message)
                contents[id(message)] = content, count_payload(content)
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
