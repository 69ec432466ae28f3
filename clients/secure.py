"""The site's side of secure aggregation: its session, fed with what it trains or evaluates.

The global model comes with the announcement of a round, whose context binds its digest into every
mask key; training happens only when the masked vector is asked for. A plain update, weight or
metric does not leave the site.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedtrain.aggregation import (
    build_evaluation_encoding,
    encode_evaluation,
)
from fedtrain.durable import replace_file
from fedtrain.errors import PeerError
from fedtrain.ledger.site_ledger import Released
from fedtrain.params import Vector
from fedtrain.plan import get_threshold, make_entry, sends_metrics
from fedtrain.privacy.site_noise import NoiseShare
from fedtrain.protocol import (
    ARRAYS,
    EVALUATION,
    LEDGER_LINE,
    PREPARATION_TEXT,
    RELEASE,
    SECAGG,
    SECAGG_COHORT,
    SECAGG_MESSAGE,
    SECAGG_PURPOSE,
    SERVER_ROUND,
    STATISTICS,
    TRAINING,
    WORDS,
)
from fedtrain.secagg.codec import Message as SecureMessage
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.masks import Words
from fedtrain.secagg.messages import (
    AdvertisementList,
    RoundContext,
    ShareDelivery,
    SignatureList,
    SurvivorSet,
)
from fedtrain.training.group_metrics import describe_parts
from fedtrain.training.measures import Sums, build_measure
from fedtrain.training_vector import TrainingVector

from .attempts import Attempt, begin_attempt, find_attempt
from .flower import read_parameters, read_start, to_array_record
from .handlers import check_budget, compute_parts, compute_sums, produce_update
from .site import Site, open_site, read_clip, read_config, read_number, read_text
from .statistics import check_question, compute_statistics, verify_purpose


@dataclass(frozen=True)
class Encoded:
    """What a site is to send.

    Attributes:
        words: The encoded vector, `(m,)`.
        share: The noise that is in it; None where it needs none.
        released: The entry of the site's ledger that pays for it; None without a ledger.
    """

    words: Words
    share: NoiseShare | None = None
    released: Released | None = None


def advertise(message: Message, context: Context) -> Message:
    """Answer the announcement of a round: check it, and send this round's signed keys."""
    site = open_site(message, context)
    _require_mode(site, "protocol")
    record, secure = read_config(message), _read_secure(message)
    announced = decode(_read_bytes(secure), RoundContext)
    purpose = _read_purpose(secure)
    verify_purpose(site, purpose)
    vector = _read_vector(site, message, purpose)
    if announced.round > site.config.rounds:
        # What the run costs is planned for so many sums.
        raise RefusalError("context", f"round {announced.round} is beyond the config's last")
    if purpose == STATISTICS:
        check_question(site, record, len(announced.cohort))
    if purpose == EVALUATION and not sends_metrics(site.config):
        raise RefusalError("context", "privacy.metrics = 'suppressed': nothing is evaluated")
    if announced.threshold < get_threshold(site.config, len(announced.cohort)):
        # The shares of the noise are made for the config's.
        raise RefusalError("threshold", f"threshold {announced.threshold} is below the config's")
    if purpose == TRAINING:
        check_budget(site, record, vector)
    answer = begin_attempt(site, announced, record, vector=vector, purpose=purpose)
    return _answer(message, answer)


def share(message: Message, context: Context) -> Message:
    """Answer the peers' keys: check them, and send encrypted shares of this site's secrets."""
    _, attempt = _find_attempt(message, context)
    listed = decode(_read_bytes(_read_secure(message)), AdvertisementList)
    return _answer(message, attempt.session.share_keys(listed))


def mask(message: Message, context: Context) -> Message:
    """Train or evaluate, and send the masked vector."""
    site, attempt = _find_attempt(message, context)
    delivery = decode(_read_bytes(_read_secure(message)), ShareDelivery)
    encoded = _compute_words(
        site,
        attempt.purpose,
        attempt.record,
        vector=attempt.vector,
        cohort=attempt.cohort,
        context=context,
    )
    masked = attempt.session.mask(encoded.words, delivery)
    reply = _answer(message, masked)
    if _is_noted(site, attempt.purpose):
        reply.content[RELEASE] = _make_release(site, attempt.record, encoded)
    return reply


def sign(message: Message, context: Context) -> Message:
    """Answer the set of survivors: sign it, the only one of this round."""
    _, attempt = _find_attempt(message, context)
    offered = decode(_read_bytes(_read_secure(message)), SurvivorSet)
    return _answer(message, attempt.session.sign_survivors(offered))


def unmask(message: Message, context: Context) -> Message:
    """Answer the survivors' signatures: reveal the shares that the sum needs."""
    _, attempt = _find_attempt(message, context)
    listed = decode(_read_bytes(_read_secure(message)), SignatureList)
    return _answer(message, attempt.session.unmask(listed))


def encode_plainly(message: Message, context: Context) -> Message:
    """Answer in mode "arithmetic": the encoded vector itself, which hides nothing."""
    site = open_site(message, context)
    _require_mode(site, "arithmetic")
    record, secure = read_config(message), _read_secure(message)
    purpose = _read_purpose(secure)
    verify_purpose(site, purpose)
    cohort = secure.get(SECAGG_COHORT)
    if not isinstance(cohort, int):
        raise PeerError(f"the message lacks '{SECAGG_COHORT}'")
    encoded = _compute_words(
        site,
        purpose,
        record,
        vector=_read_vector(site, message, purpose),
        cohort=cohort,
        context=context,
    )
    content = RecordDict({ARRAYS: to_array_record({WORDS: encoded.words})})
    if _is_noted(site, purpose):
        content[RELEASE] = _make_release(site, record, encoded)
    return Message(content, reply_to=message)


def _compute_words(
    site: Site, purpose: str, record: ConfigRecord, *, vector: Vector, cohort: int, context: Context
) -> "Encoded":
    """Return this site's encoded vector, and what its ledger lines say of it."""
    round_ = int(read_number(record, SERVER_ROUND))
    generator = site.make_generator(f"rounding {purpose}", round_)
    if purpose == TRAINING:
        clip = read_clip(site.config, record)
        size = vector.shape[-1]
        layout = TrainingVector(site.config, size=size, cohort=cohort, clip=clip, round=round_)
        own = produce_update(site, record, vector, clip=clip)
        model = vector if vector.ndim == 1 else vector[0]
        words = layout.encode(
            own.update.vector - model,
            weight=own.weight,
            train_loss=own.update.train_loss,
            steps=own.update.steps,
            gradient_norm=own.update.gradient_norm,
            rounding=generator,
            noise=site.make_generator("noise share", round_),
        )
        return Encoded(words, layout.share, own.released)
    if purpose == STATISTICS:
        found = compute_statistics(site, record, cohort, rounding=generator)
        return Encoded(found.words, found.share, found.released)
    validation, test = compute_sums(site, record, vector)
    parts = compute_parts(site, record, vector)
    folder = str(context.node_config.get("results-dir", ""))
    _note_results(site, record, test, parts=parts, folder=folder)
    preparation, _ = site.runtime.prepare(read_text(record, PREPARATION_TEXT))
    classes = len(preparation.label_names)
    encoding = build_evaluation_encoding(site.config, classes=classes, cohort=cohort)
    words = encode_evaluation(encoding, validation, test, generator=generator, parts=parts)
    return Encoded(words)


def _note_results(
    site: Site,
    record: ConfigRecord,
    test: Sums | None,
    *,
    parts: Mapping[str, Sums | None],
    folder: str,
) -> None:
    """Write the site's own metrics down where the site wants them: they are not sent."""
    if not folder or test is None:
        return
    found = build_measure(site.config, classes=0).describe(test)
    metrics = {f"test_{name}": value for name, value in found.items()}
    metrics |= describe_parts(parts)
    line = {"site": site.name, "round": int(read_number(record, SERVER_ROUND))} | metrics
    path = Path(folder) / f"{site.index:06d}.json"
    replace_file(path, json.dumps(line) + "\n", sync=False)


def _is_noted(site: Site, purpose: str) -> bool:
    """Say whether the run's ledger has a line of what leaves: of what the run is for."""
    return purpose == (TRAINING if site.config.statistics is None else STATISTICS)


def _make_release(site: Site, record: ConfigRecord, encoded: Encoded) -> ConfigRecord:
    """Return the ledger line of what leaves the site: the vector as it is sent."""
    # Nothing rests on the bytes of a vector that is neither masked nor noised.
    bare = site.config.secure_aggregation.mode == "arithmetic"
    bare = bare and site.config.privacy.unit == "none"
    entry = make_entry(
        site.runtime.plan if site.config.statistics is None else None,
        site=site.name,
        round=int(read_number(record, SERVER_ROUND)),
        update_digest=None if bare else hashlib.sha256(encoded.words.data).hexdigest(),
        share=encoded.share,
        released=encoded.released,
    )
    return ConfigRecord({LEDGER_LINE: entry.to_json()})


def _require_mode(site: Site, mode: str) -> None:
    if site.config.secure_aggregation.mode != mode:
        raise PeerError(
            f"secure_aggregation.mode = '{site.config.secure_aggregation.mode}', the message is of"
            f" mode '{mode}'"
        )


def _find_attempt(message: Message, context: Context) -> tuple[Site, Attempt]:
    site = open_site(message, context)
    return site, find_attempt(site, read_config(message), _read_purpose(_read_secure(message)))


def _read_vector(site: Site, message: Message, purpose: str) -> Vector:
    if purpose == TRAINING:
        return read_start(message, site.config.federation.strategy)
    return read_parameters(message)


def _read_secure(message: Message) -> ConfigRecord:
    record = message.content.get(SECAGG)
    if not isinstance(record, ConfigRecord):
        raise PeerError(f"the message lacks its '{SECAGG}' record")
    return record


def _read_bytes(record: ConfigRecord) -> bytes:
    value = record.get(SECAGG_MESSAGE)
    if not isinstance(value, bytes):
        raise PeerError(f"the message lacks '{SECAGG_MESSAGE}'")
    return value


def _read_purpose(record: ConfigRecord) -> str:
    purpose = record.get(SECAGG_PURPOSE)
    if purpose not in (TRAINING, EVALUATION, STATISTICS):
        raise PeerError(
            f"'{SECAGG_PURPOSE}' is {purpose!r}; it must be train, evaluate or statistics"
        )
    return str(purpose)


def _answer(message: Message, answer: SecureMessage) -> Message:
    record = ConfigRecord({SECAGG_MESSAGE: bytes(encode(answer))})
    return Message(RecordDict({SECAGG: record}), reply_to=message)
