"""What a report says, as one tree of records: the form of `report.json`, and its JSON Schema.

A page, a model card and a registry entry are renderings of this tree and add nothing to it. Every
figure in it follows from the run directory; `fedtrain verify` computes it again.
"""

import hashlib
import json
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from fedtrain.canonical import read_exactly, to_canonical

FORMAT: Final = 1
SCHEMA_ID: Final = "https://fedtrain.invalid/schemas/report-1.json"
LABEL: Final = "report"  # what the coordinator's signature is under

Unit = Literal["record", "person", "site"]
Level = Literal["bounded", "unbounded", "contradicted", "unfinished"]


class Part(BaseModel):
    """A frozen part of a report that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Fact(Part):
    """A name with its text."""

    name: str
    text: str


class RunFacts(Part):
    """Which run this is of.

    Attributes:
        simulated: Whether sites and keys are a simulation's, on one machine.
        seeded: Whether its noise follows from the config's seed.
        software: Versions by package, as the run recorded them.
    """

    name: str
    run_id: str
    config_digest: str
    status: str
    started: str
    rounds_done: int
    rounds_planned: int
    sites: int
    model: str
    simulated: bool
    seeded: bool
    software: dict[str, str]


class Verdict(Part):
    """What a reader who reads nothing else should know: a heading and three sentences."""

    level: Level
    title: str
    sentences: tuple[str, str, str]


class StatementField(Part):
    """One of the thirteen fields of a guarantee's statement; `section` says more."""

    number: int
    name: str
    text: str
    section: str


class Mechanism(Part):
    """What was done, in numbers; what does not apply is null.

    Attributes:
        clip: L2 bound on what one unit adds to a sum; with adaptive clipping the largest.
        steps: Steps of the site that took part most.
        divisor: Public constant that a noisy sum is divided by.
    """

    name: str
    noise_multiplier: float
    clip: float
    sample_rate: float
    steps: int
    divisor: float


class Guarantee(Part):
    """One epsilon of the run with all that it means; null where nothing is promised.

    Attributes:
        prefix: Of its keys in `metrics.jsonl`.
        against: Whom it holds against.
        check_epsilon: The same by Rényi divergences, an independent upper bound.
    """

    prefix: str
    unit: Unit
    name: str
    against: str
    epsilon: float | None
    delta: float
    neighbouring_relation: str
    accountant: str
    discretisation: float | None
    check_epsilon: float | None
    mechanism: Mechanism


class Attack(Part):
    """The best that any attack can do that accuses so many non-members wrongly."""

    false_positive_rate: float
    true_positive_rate: float


class Belief(Part):
    """What a belief that one was in the data can become, but for a chance of delta."""

    prior: float
    posterior: float


class Meaning(Part):
    """A guarantee in other terms.

    Attributes:
        mu: Of the Gaussian whose privacy profile lies above the guarantee's; null where none does.
        mu_delta: Smallest delta at which the two were compared.
        advantage: Most that any attack's true positive rate exceeds its false positive rate.
        curve: Attacks from never accusing to always.
    """

    prefix: str
    mu: float | None
    mu_delta: float
    advantage: float
    attacks: tuple[Attack, ...]
    beliefs: tuple[Belief, ...]
    curve: tuple[Attack, ...]
    sentences: tuple[str, ...]


class Release(Part):
    """Equal releases of one site: the ledger's lines but for round, digest and head.

    Attributes:
        rounds: As ranges: `1-20` or `1-3,5`.
        terms: The lines' other keys, canonical JSON.
    """

    rounds: str
    count: int
    terms: str


class Lifetime(Part):
    """Where a site's lifetime budget stands, as the site itself signed it.

    Attributes:
        ledger: Random name of the site's own ledger.
        committed, reserved, total: Rényi divergences at `order`.
        committed_epsilon: What the committed divergence proves at `delta`.
        head, index: The ledger's last entry when it was signed.
    """

    ledger: str
    unit: Unit
    neighbouring_relation: str
    epsilon: float
    delta: float
    order: float
    committed: str
    reserved: str
    total: str
    committed_epsilon: float
    runs: int
    head: str
    index: int


class SiteSpending(Part):
    """What one site released and spent; epsilon is null where nothing bounds it."""

    site: str
    rounds: int
    epsilon: float | None
    delta: float | None
    releases: tuple[Release, ...]
    lifetime: Lifetime | None


class Spending(Part):
    """All sites' spending, and what is to be said about it."""

    sites: tuple[SiteSpending, ...]
    sentences: tuple[str, ...]


class SumRound(Part):
    """One secure sum, or one round without any.

    Attributes:
        purpose: `train` or `evaluate`.
        signatures: Those that an auditor can check; 0 where the mode signs nothing.
    """

    round: int
    purpose: str
    cohort: int
    threshold: int | None
    survivors: int
    signatures: int
    void: str | None


class SecureSums(Part):
    """What the coordinator could see of one site."""

    mode: str
    sentences: tuple[str, ...]
    signatures: int
    void_rounds: int
    rounds: tuple[SumRound, ...]


class FindingPart(Part):
    """What one audit method found; see `fedtrain.audit.findings`."""

    method: str
    title: str
    threat_model: str
    unit: Unit
    sample_size: int
    confidence: float | None
    seed: int
    figures: dict[str, float | int | str | None]
    verdict: Literal["holds", "violated", "inconclusive", "informative"]
    sentence: str
    pictures: tuple[str, ...]
    code: str


class AuditPart(Part):
    """All findings beside the bound."""

    findings: tuple[FindingPart, ...]
    sentences: tuple[str, ...]


class SiteScores(Part):
    """One site's own metrics, of the round in which it wrote them."""

    site: str
    round: int | None
    scores: dict[str, float]


class Utility(Part):
    """How good the model is, and how evenly.

    Attributes:
        measure: The metric that sites are compared by; null where there is none.
    """

    scores: dict[str, float]
    measure: str | None
    sites: tuple[SiteScores, ...]
    sentences: tuple[str, ...]


class ConfigPart(Part):
    """The resolved config, but for keys that say where a run is computed and not what."""

    digest: str
    toml: str


class Hazard(Part):
    """A hazard of differential privacy in practice, what answers it, and where that is shown."""

    layer: str
    name: str
    answer: str
    section: str


class Limits(Part):
    """What is not protected, what stays at risk, and what was done about known hazards."""

    not_protected: tuple[str, ...]
    residual_risks: tuple[str, ...]
    hazards: tuple[Hazard, ...]


class Signed(Part):
    """Who signed what; `own`: a site, for its own ledger."""

    who: str
    what: str
    key: str
    result: str
    own: bool


class CheckRow(Part):
    """One check of the run directory that was made before the report was written."""

    name: str
    count: int
    result: str


class StandardRow(Part):
    """Which field of a standard is in which section."""

    source: str
    field: str
    section: str


class Report(Part):
    """A whole report, in the order in which it is read.

    Attributes:
        evidence: SHA-256 of the files that it follows from, by name.
    """

    format: Literal[1]
    run: RunFacts
    verdict: Verdict
    statement: tuple[StatementField, ...]
    guarantees: tuple[Guarantee, ...]
    meanings: tuple[Meaning, ...]
    spending: Spending
    secure_aggregation: SecureSums
    audit: AuditPart
    utility: Utility
    data_sheet: tuple[Fact, ...]
    config: ConfigPart
    limits: Limits
    signed: tuple[Signed, ...]
    checks: tuple[CheckRow, ...]
    standards: tuple[StandardRow, ...]
    evidence: dict[str, str]

    def compute_digest(self) -> str:
        """Return the SHA-256 (hex) of the canonical form."""
        return hashlib.sha256(to_canonical(self.model_dump()).encode()).hexdigest()


class SignedReport(Part):
    """The file `report.json`.

    Attributes:
        digest: Of the report.
        key: The coordinator's public key, hex; empty where nobody signed.
        signature: Over the digest, hex; empty likewise.
        simulated: Whether the key follows from the run's seed.
    """

    report: Report
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    key: str = Field(pattern=r"^([0-9a-f]{64})?$")
    signature: str = Field(pattern=r"^([0-9a-f]{128})?$")
    simulated: bool

    def to_json(self) -> str:
        """Return the one text that it is written as."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            AuditError: It is not, byte for byte, a report's text.
        """
        return read_exactly(cls, text, name="a report")


def build_schema() -> dict[str, Any]:
    """Return the JSON Schema of `report.json`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    return schema | SignedReport.model_json_schema(mode="serialization")
