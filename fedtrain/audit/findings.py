"""The record of what one audit method found: one JSON file beside the run, read strictly.

A theorem bounds the leak from above, a finding from below, or it measures what the theorem takes
for granted. `violated` says that a claim is contradicted at the stated confidence; nothing here
ever says that something is private.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fedtrain.durable import replace_file
from fedtrain.errors import AuditError, RunDirectoryError

Verdict = Literal["holds", "violated", "inconclusive", "informative"]
Unit = Literal["record", "person", "site"]
Figure = float | int | str | None

FOLDER: Final = "audit"
NO_PROOF: Final = "A bound below the claim is no proof of privacy."
_NAME: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_Picture = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _read_version() -> str:
    try:
        return metadata.version("fedtrain")
    except metadata.PackageNotFoundError:
        return "(not installed)"


class _Form(BaseModel):
    """Types and limits of a finding's fields."""

    model_config = ConfigDict(strict=True, extra="forbid")

    method: str = Field(pattern=_NAME, max_length=64)
    title: str = Field(min_length=1)
    threat_model: str = Field(min_length=1)
    unit: Unit
    sample_size: int = Field(ge=0)
    confidence: float | None = Field(gt=0, lt=1)
    seed: int = Field(ge=0)
    figures: Mapping[str, Figure]
    verdict: Verdict
    sentence: str = Field(min_length=1)
    pictures: tuple[_Picture, ...]
    code: str = Field(min_length=1)


@dataclass(frozen=True)
class Finding:
    """What one method found.

    Attributes:
        method: Stable name, such as "one-run"; lower case, words joined by "-". Also the name of
            the file.
        title: The method in a few words.
        threat_model: What the attacker sees, in one sentence.
        unit: What is attacked: a record, a person or a site.
        sample_size: Canaries, draws or records that the figures rest on, at least 0.
        confidence: Of bounds and intervals, such as 0.95; None where there is none.
        seed: Of the method's draws.
        figures: Flat, by name; finite numbers, texts, or None for what does not exist. An epsilon
            has its delta, claimed epsilon and neighbouring relation beside it.
        verdict: `holds`: nothing contradicts the claim; `violated`: the claim is contradicted at
            the stated confidence; `inconclusive`: the method could not tell; `informative`: there
            is no claim to compare with.
        sentence: Plain words for a privacy officer.
        pictures: Names of files beside the finding.
        code: Version of the distribution that found it.

    Raises:
        AuditError: A number or a name is out of its range.
    """

    method: str
    title: str
    threat_model: str
    unit: Unit
    sample_size: int
    confidence: float | None
    seed: int
    figures: Mapping[str, Figure]
    verdict: Verdict
    sentence: str
    pictures: tuple[str, ...] = ()
    code: str = field(default_factory=_read_version)

    def __post_init__(self) -> None:
        try:
            _Form.model_validate(vars(self))
        except ValidationError as error:
            raise AuditError(f"finding: {_describe(error)}") from error
        for name, figure in self.figures.items():
            if isinstance(figure, float) and not math.isfinite(figure):
                raise AuditError(f"finding {self.method}: figure {name} = {figure} is not finite")

    def to_json(self) -> str:
        """Return the one text that this finding is written as: keys sorted, a line break last."""
        tree = {**vars(self), "figures": dict(self.figures), "pictures": list(self.pictures)}
        return json.dumps(tree, sort_keys=True, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            AuditError: It is not, byte for byte, a finding's text.
        """
        try:
            tree: dict[str, Any] = json.loads(text)
            finding = cls(**{**tree, "pictures": tuple(tree["pictures"])})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise AuditError(f"not a finding ({error})") from error
        if finding.to_json() != text:
            raise AuditError("not in the form that findings are written in; restore it")
        return finding


def save_finding(run: Path, finding: Finding) -> Path:
    """Write a finding to `RUN/audit/METHOD.json`, whole or not at all.

    Args:
        run: The run directory.
        finding: What was found; an older finding of the same method is replaced.

    Returns:
        The file.

    Raises:
        RunDirectoryError: It cannot be written.
    """
    path = run / FOLDER / f"{finding.method}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        replace_file(path, finding.to_json())
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def load_findings(run: Path) -> list[Finding]:
    """Read all findings of a run, by the name of their method; none where none were saved.

    Raises:
        AuditError: A file is not a finding, or has another method's name.
    """
    return [_load(path) for path in sorted((run / FOLDER).glob("*.json"))]


def describe_findings(findings: Sequence[Finding]) -> str:
    """Say in a line how many claims hold and how many are contradicted."""
    count = dict.fromkeys(("violated", "holds", "inconclusive", "informative"), 0)
    for finding in findings:
        count[finding.verdict] += 1
    return ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number) or "none"


def _load(path: Path) -> Finding:
    try:
        finding = Finding.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"{FOLDER}/{path.name}: cannot be read ({error})") from error
    except AuditError as error:
        raise AuditError(f"{FOLDER}/{path.name}: {error}") from error
    if path.stem != finding.method:
        raise AuditError(f"{FOLDER}/{path.name}: is the finding of {finding.method}; restore it")
    return finding


def _describe(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place} = {problem['input']!r}: {problem['msg']}"
