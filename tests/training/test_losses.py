import numpy as np
import pytest
import torch
from torch import nn

from fedtrain.config import parse_config
from fedtrain.errors import ConfigError
from fedtrain.training.book_keeping import BookKeeper
from fedtrain.training.losses import build_loss, verify_class_weights

LOSSES = [
    "loss = 'cross_entropy'\nlabel_smoothing = 0.1",
    "loss = 'focal'\nfocal_gamma = 3.0",
    "loss = 'bce'",
    "class_weights = [1.0, 2.0, 0.5, 3.0]",
]


def build(text):
    return build_loss(parse_config(f"[training]\n{text}"))


def make_batch(records=12, classes=4):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(records, 5, generator=generator)
    return features, torch.randint(classes, (records,), generator=generator)


@pytest.mark.parametrize("text", LOSSES)
def test_loss_of_a_batch_is_the_sum_of_its_records(text):
    loss, (features, labels) = build(text), make_batch()
    logits = features[:, :4]
    each = torch.stack([loss(logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))])
    torch.testing.assert_close(loss(logits, labels, reduction="none"), each)
    torch.testing.assert_close(loss(logits, labels, reduction="sum"), each.sum())


@pytest.mark.parametrize("text", LOSSES)
def test_clipped_sum_of_a_loss_equals_one_backward_pass_a_record(text):
    loss, (features, labels) = build(text), make_batch()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(len(labels)):
        value = loss(model(features[i : i + 1]), labels[i : i + 1])
        gradients = torch.autograd.grad(value, list(model.parameters()))
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        for total, gradient in zip(expected, gradients, strict=True):
            total += gradient * min(1.0, 0.3 / float(norm))
    found, _ = BookKeeper(model, loss=loss).compute_clipped_sum(features, labels, max_grad_norm=0.3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


NUMBERS = ["loss = 'mse'", "loss = 'mae'", "loss = 'huber'", "loss = 'quantile'\nquantile = 0.9"]


@pytest.mark.parametrize("text", NUMBERS)
def test_clipped_sum_of_a_loss_of_numbers_equals_one_backward_pass_a_record(text):
    config = parse_config(
        f"[data]\ntask = 'regression'\ntarget_bounds = [0, 1]\n[training]\n{text}"
    )
    loss, generator = build_loss(config), torch.Generator().manual_seed(0)
    features, targets = torch.randn(9, 5, generator=generator), torch.rand(9, 2)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    expected = torch.zeros(sum(p.numel() for p in model.parameters()))
    for i in range(len(targets)):
        value = loss(model(features[i : i + 1]), targets[i : i + 1])
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, model.parameters())])
        expected += gradient * min(1.0, 0.1 / float(gradient.norm()))
    keeper = BookKeeper(model, loss=loss)
    found, _ = keeper.compute_clipped_sum(features, targets, max_grad_norm=0.1)
    torch.testing.assert_close(
        torch.cat([f.flatten() for f in found]), expected, rtol=1e-4, atol=1e-5
    )


def test_quantile_loss_is_least_at_the_quantile():
    config = parse_config(
        "[data]\ntask = 'regression'\ntarget_bounds = [0, 1]\n"
        "[training]\nloss = 'quantile'\nquantile = 0.8"
    )
    targets = torch.linspace(0, 1, 101)[:, None]
    losses = [
        float(build_loss(config)(torch.full_like(targets, c), targets))
        for c in targets.flatten().tolist()
    ]
    assert targets[int(np.argmin(losses))] == pytest.approx(0.8, abs=0.011)


def test_focal_loss_counts_a_sure_record_less_than_cross_entropy():
    sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.1, 0.0]])
    label = torch.tensor([0])
    focal, plain = build("loss = 'focal'"), build("")
    share = plain(sure, label) / plain(unsure, label)
    assert focal(sure, label) / focal(unsure, label) < share / 100


def test_reported_loss_has_no_label_smoothing():
    config = parse_config("[training]\nlabel_smoothing = 0.2")
    logits, label = torch.tensor([[9.0, -9.0]]), torch.tensor([0])
    assert build_loss(config)(logits, label) > 1
    assert float(build_loss(config, training=False)(logits, label)) < 1e-6


def test_default_loss_is_torchs_cross_entropy():
    assert build("") is nn.functional.cross_entropy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focal_gamma = 2.0", "no effect while loss = the task's default"),
        ("loss = 'mse'", "does not fit data.task = 'classification'; choose cross_entropy"),
        ("nesterov = true", "needs momentum"),
        ("adam_betas = [0.9, 0.99]", "no effect while optimiser = 'sgd'"),
        ("optimiser = 'adam'\nadam_betas = [0.9, 1.0]", "at least 0 and below 1"),
        ("optimiser = 'adam'\nrmsprop_alpha = 0.9", "no effect while optimiser = 'adam'"),
        ("schedule = 'step'", "schedule_rounds is missing"),
        ("schedule_factor = 0.5", "no effect while schedule is not set"),
        ("warmup_rounds = 50", "above federation.rounds = 10"),
        (
            "schedule = 'plateau'\nschedule_rounds = 2\n[data]\nvalidation_fraction = 0",
            "= 0 leaves",
        ),
    ],
)
def test_contradiction_is_refused_with_a_cure(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(f"[training]\n{text}")


def test_clip_of_batches_and_validation_losses_are_refused_under_privacy():
    private = (
        "[training]\nsampling = 'poisson'\nsample_rate = 0.1\nexpected_batch_size = 4.0\n{0}"
        "[federation]\n{1}\n[privacy]\nunit = 'record'\nnoise_multiplier = 1.0"
    )
    with pytest.raises(ConfigError, match="clips each record's"):
        parse_config(private.format("max_grad_norm = 1.0\n", ""))
    with pytest.raises(ConfigError, match="patience = 3 would follow unprotected"):
        parse_config(private.format("", "patience = 3"))


def test_finite_gradient_of_focal_loss_at_probability_one():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    build("loss = 'focal'\nfocal_gamma = 1.0")(logits, torch.tensor([0])).backward()
    assert np.isfinite(logits.grad.numpy()).all()


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_class_weight_multiplies_a_record_and_leaves_the_others_alone(name):
    (features, labels), text = make_batch(), f"loss = '{name}'"
    logits, weights = features[:, :4], torch.tensor([1.0, 2.0, 0.5, 3.0])
    weighed = build(f"{text}\nclass_weights = [1.0, 2.0, 0.5, 3.0]")
    expected = build(text)(logits, labels, reduction="none") * weights[labels]
    torch.testing.assert_close(weighed(logits, labels, reduction="none"), expected)
    torch.testing.assert_close(weighed(logits, labels, reduction="sum"), expected.sum())
    torch.testing.assert_close(weighed(logits, labels), expected.mean())


def test_wrong_number_of_class_weights_is_refused():
    section = parse_config("[training]\nclass_weights = [1.0, 2.0]").training
    verify_class_weights(section, 2)
    with pytest.raises(ConfigError, match="2 weights for 4 classes"):
        verify_class_weights(section, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class_weights = [1.0, -1.0]", "none may be below 0"),
        ("loss = 'bce'\nclass_weights = [1.0, 2.0]", "has no effect while loss = 'bce'"),
    ],
)
def test_class_weights_that_make_no_sense_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        build(text)
