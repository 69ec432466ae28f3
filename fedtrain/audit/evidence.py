"""The files of a run directory, read strictly: each in the one form that it is written in.

Reading for people (`fedtrain.report.run`) forgives what a kill leaves behind. An audit forgives
nothing below the last commit: a file that is not byte for byte what its content is written as was
changed by someone else.
"""

import json
import math
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fedtrain.canonical import to_canonical
from fedtrain.config import Config, compute_digest, parse_config, to_toml
from fedtrain.errors import AuditError, FedtrainError
from fedtrain.privacy.ledger import LedgerEntry
from fedtrain.runs import RunState
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.faults import MessageError
from fedtrain.secagg.messages import RoundContext, SignedRoster
from fedtrain.secagg.roster import PinnedRoster
from fedtrain.training.metrics import NAMES

T = TypeVar("T")

LINE_FILES: Final = ("metrics.jsonl", "ledger.jsonl", "transcript.jsonl")
_TEXTS: Final = ("void", "control")
_PARTS: Final = ("own_", "group_", "group:")  # see fedtrain.evaluation_parts
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_WHOLE: Final = ("round", "cohort", "survivors", "threshold", "bytes_up", "bytes_down")
_METRICS: Final = frozenset(
    {*_WHOLE, "void", "train_loss", "update_norm", "rate_factor", "gradient_norm"}
    | {"delta", "epsilon", "seconds"}
    | {"control"}
    | {f"{whom}_{what}" for whom in ("site", "coordinator") for what in ("epsilon", "delta")}
    | {f"{split}_{name}" for split in ("val", "test") for name in NAMES}
)
_STATE: Final = TypeAdapter(RunState)
_MAX_WHOLE: Final = 2**53


class _Record(BaseModel):
    """Types of a transcript's line; `verify_transcript` checks what they hold."""

    model_config = ConfigDict(extra="forbid")

    context: str
    advertisements: str = ""
    senders: tuple[str, ...] = ()
    vectors: dict[str, tuple[str, str]]
    survivors: tuple[str, ...] = ()
    signatures: str = ""
    sum: str = ""
    void: str = ""


class _Site(BaseModel):
    """Types of what `sites.json` says of each site; its metrics are extra."""

    model_config = ConfigDict(extra="allow")

    site: str
    rounds: int
    epsilon: float | None


_RECORD: Final = TypeAdapter(_Record)
_SITES: Final = TypeAdapter(list[_Site])


@dataclass(frozen=True)
class SecureSum:
    """One line of the transcript.

    Attributes:
        record: As `verify_transcript` takes it.
        context: What its sites were shown.
        purpose: "train" or "evaluate", or whatever stands in its place.
    """

    record: dict[str, Any]
    context: RoundContext
    purpose: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"transcript.jsonl: round {self.context.round}, {self.purpose}"


class Evidence:
    """A run directory's files; each is read when it is first asked for.

    Every property raises AuditError where its file is missing, damaged or not in its form.
    """

    def __init__(self, path: Path, roster: Path | None = None) -> None:
        """Take a run directory.

        Args:
            path: The directory.
            roster: A file in the form of `roster.json` to check against instead of the run's own.
        """
        self.path = path
        self.roster_path = roster or path / "roster.json"

    @cached_property
    def config(self) -> Config:
        """The config; its text is what the config is written as, with its digest below."""
        text = self.read_text("config.toml")
        try:
            config = parse_config(text, name="config.toml")
        except FedtrainError as error:
            raise AuditError(str(error)) from error
        if text != f'{to_toml(config)}\n# digest = "{compute_digest(config)}"\n':
            raise AuditError(
                "config.toml: the digest in its last line is not that of its content, or its form"
                " was changed; restore it from a copy"
            )
        return config

    @cached_property
    def mode(self) -> str:
        """The mode of secure aggregation."""
        return self.config.secure_aggregation.mode

    @cached_property
    def state(self) -> RunState:
        """What `state.json` says."""
        text = self.read_text("state.json")
        state = _validate(_STATE, text, "state.json")
        if text != json.dumps(asdict(state)) + "\n":
            raise AuditError("state.json: not in the form that it is written in; restore it")
        return state

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, by round from 1."""
        lines = []
        for number, text in enumerate(self.read_lines("metrics.jsonl"), start=1):
            where = f"metrics.jsonl: line {number}"
            line = _parse(text, where)
            if not isinstance(line, dict) or text != json.dumps(line):
                raise AuditError(f"{where}: not in the form that it is written in; restore it")
            _check_values(line, where)
            if line["round"] != number:
                raise AuditError(f"{where}: is of round {line['round']}, due is round {number}")
            lines.append(line)
        return lines

    @cached_property
    def ledger(self) -> list[LedgerEntry]:
        """The entries of `ledger.jsonl`."""
        entries = []
        for number, text in enumerate(self.read_lines("ledger.jsonl"), start=1):
            try:
                entries.append(LedgerEntry.from_json(text))
            except AuditError as error:
                raise AuditError(f"ledger.jsonl: line {number}: {error}") from error
        return entries

    @cached_property
    def sites(self) -> list[dict[str, Any]] | None:
        """The entries of `sites.json`; None where there is no such file."""
        if not (self.path / "sites.json").exists():
            return None
        text = self.read_text("sites.json")
        tree = _parse(text, "sites.json")
        if text != json.dumps(tree, indent=2) + "\n":
            raise AuditError("sites.json: not in the form that it is written in; restore it")
        _validate(_SITES, text, "sites.json")
        return cast("list[dict[str, Any]]", tree)

    @cached_property
    def roster(self) -> PinnedRoster:
        """The roster to check against."""
        return read_roster(self.roster_path)

    @cached_property
    def sums(self) -> list[SecureSum]:
        """The lines of `transcript.jsonl`."""
        return [
            _read_sum(text, f"transcript.jsonl: line {number}")
            for number, text in enumerate(self.read_lines("transcript.jsonl"), start=1)
        ]

    def read_lines(self, name: str) -> list[str]:
        """Return the committed lines of a line file."""
        length = self.state.lengths.get(name, 0)
        path = self.path / name
        data = self.read_bytes(name) if length or path.exists() else b""
        if len(data) < length or (len(data) > length and self.state.status == "finished"):
            raise AuditError(f"{name}: has {len(data)} bytes, state.json committed {length}")
        data = data[:length]
        if data and not data.endswith(b"\n"):
            raise AuditError(f"{name}: the last committed line is cut short")
        return _decode(data, name).split("\n")[:-1]

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the table in a JSON file."""
        tree = _parse(self.read_text(name), name)
        if not isinstance(tree, dict):
            raise AuditError(f"{name}: holds no table")
        return tree

    def read_text(self, name: str) -> str:
        """Return the text of a file."""
        return _decode(self.read_bytes(name), name)

    def read_bytes(self, name: str) -> bytes:
        """Return the bytes of a file."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise AuditError(f"{name}: cannot be read ({error.strerror})") from error


def read_roster(path: Path) -> PinnedRoster:
    """Read a roster with its root, in the form of a run directory's `roster.json`.

    Raises:
        AuditError: It cannot be read, or is not in its form.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = _parse(text, path.name)
        signed = decode(bytes.fromhex(tree["roster"]), SignedRoster)
        root, simulated = bytes.fromhex(tree["root_public_key"]), tree["simulated"]
    except OSError as error:
        raise AuditError(f"{path.name}: cannot be read ({error.strerror})") from error
    except MessageError as error:
        raise AuditError(f"{path.name}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise AuditError(f"{path.name}: malformed or incomplete ({error!r})") from error
    entries = {entry.site: entry.public_key.hex() for entry in signed.roster.entries}
    form = {"simulated", "root_public_key", "roster", "sites"}
    if text != json.dumps(tree, indent=2) + "\n" or set(tree) != form or tree["sites"] != entries:
        raise AuditError(
            f"{path.name}: not in the form that it is written in, or the keys that it shows are not"
            " those of the signed roster; restore it"
        )
    texts = (tree["roster"], tree["root_public_key"])
    if not isinstance(simulated, bool) or texts != (encode(signed).hex(), root.hex()):
        raise AuditError(f"{path.name}: not in the form that it is written in; restore it")
    return PinnedRoster(signed, root, simulated)


def _read_sum(text: str, where: str) -> SecureSum:
    record = _parse(text, where)
    _validate(_RECORD, text, where)
    if text != to_canonical(record) or not _is_lower(record):
        raise AuditError(f"{where}: not in the form that it is written in; restore it")
    try:
        context = decode(bytes.fromhex(record["context"]), RoundContext)
    except (MessageError, KeyError, TypeError, ValueError) as error:
        raise AuditError(f"{where}: its context cannot be read ({error})") from error
    return SecureSum(record, context, context.run.rpartition("/")[2])


def _is_lower(record: dict[str, Any]) -> bool:
    """Say whether every hexadecimal text of a record is in lower case, its one form."""
    texts = [record.get(key, "") for key in ("context", "advertisements", "signatures", "sum")]
    texts += [text for pair in record["vectors"].values() for text in pair]
    return all(text == text.lower() for text in texts)


def _check_values(line: dict[str, Any], where: str) -> None:
    unknown = sorted(key for key in set(line) - _METRICS if not key.startswith(_PARTS))
    if unknown:
        raise AuditError(f"{where}: unknown key {unknown[0]!r}")
    for key in ("round", "cohort", "survivors"):
        if key not in line:
            raise AuditError(f"{where}: {key} is missing")
    for key, value in line.items():
        kinds = (int,) if key in _WHOLE else (str,) if key in _TEXTS else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise AuditError(f"{where}: {key} = {value!r} is not a {kinds[-1].__name__}")
        if key == "control" and not _DIGEST.fullmatch(str(value)):
            raise AuditError(f"{where}: control is no SHA-256 in hexadecimal")
        if isinstance(value, int) and not 0 <= value <= _MAX_WHOLE:
            raise AuditError(f"{where}: {key} is not between 0 and 2^53")


def _validate(kind: TypeAdapter[T], text: str, where: str) -> T:
    """Read JSON as a type, strictly."""
    try:
        return kind.validate_json(text, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise AuditError(f"{where}: {place}: {problem['msg']}") from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_read_finite)
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{where}: not JSON ({error})") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _read_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is beyond what a number can be")
    return number


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AuditError(f"{name}: not UTF-8 text ({error.reason} at {error.start})") from error
