import numpy as np
import pytest

from fedtrain.aggregation import (
    bind_clip,
    build_evaluation_encoding,
    compute_model_digest,
    decode_evaluation,
    encode_evaluation,
)
from fedtrain.config import parse_config
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.resolution import resolve
from fedtrain.training.metrics import MetricSums

CONFIG = resolve(parse_config("[secure_aggregation]\nmax_weight = 1000"))


def test_model_digest_binds_the_clip():
    vector = np.ones(3, np.float32)
    digests = {compute_model_digest(vector, clip) for clip in (None, 1.0, 2.0)}
    assert len(digests) == 3
    assert bind_clip(compute_model_digest(vector), 2.0) == compute_model_digest(vector, 2.0)


def test_evaluations_add_up_and_a_site_without_records_adds_nothing():
    encoding = build_evaluation_encoding(CONFIG, classes=2, cohort=3)
    sums = MetricSums(1.5, np.array([[3, 1], [0, 2]]))
    full = MetricSums.zero(2)
    generator = SecureGenerator.from_seed(0, "rounding")
    words = [
        encode_evaluation(encoding, sums, full, generator=generator),
        encode_evaluation(encoding, sums, None, generator=generator),
        encode_evaluation(encoding, None, None, generator=generator),
    ]
    total = np.sum(words, axis=0, dtype=np.uint32)
    validation, test = decode_evaluation(encoding, total, survivors=3)
    assert validation[1:].tolist() == [6, 2, 0, 4]
    assert validation[0] == pytest.approx(3.0, abs=0.01)
    assert len(test) == 0
