"""Architectures beyond the plain ones: any batch, per-record gradients, what they look at."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from fedtrain.config import ModelSection, build_config
from fedtrain.errors import ConfigError
from fedtrain.models.dp_rules import verify_private_model, verify_records_independent
from fedtrain.models.graphs import normalise
from fedtrain.models.registry import build_described_model, build_model, describe_architecture
from fedtrain.training.divergence import add_divergence
from fedtrain.training.dp_sgd import make_book_keeper
from fedtrain.training.losses import build_loss
from fedtrain.training.positions import average_positions

CLASSES = 5
IDS = torch.int64
CASES = {
    "resnet": (ModelSection(name="resnet"), (1, 8, 8), torch.float32),
    "resnet_deep": (ModelSection(name="resnet", layers=2), (9, 11), torch.float32),
    "lstm": (ModelSection(name="lstm", hidden=(6,), embedding=4), (7,), IDS),
    "lstm_of_series": (ModelSection(name="lstm", hidden=(6, 5)), (7,), torch.float32),
    "gru": (ModelSection(name="gru", hidden=(6, 5)), (7,), IDS),
    "gru_of_steps": (ModelSection(name="gru", hidden=(6,)), (7, 3), torch.float32),
    "gru_of_rows": (ModelSection(name="gru", hidden=(6,)), (1, 5, 3), torch.float32),
    "transformer": (ModelSection(name="transformer", embedding=8, heads=2), (6,), IDS),
    "transformer_of_series": (ModelSection(name="transformer", embedding=8), (6,), torch.float32),
    "transformer_of_rows": (
        ModelSection(name="transformer", embedding=8, embedding_stddev=0.3),
        (1, 5, 3),
        torch.float32,
    ),
    "transformer_tabular": (
        ModelSection(name="transformer_tabular", embedding=8, layers=1),
        (6,),
        torch.float32,
    ),
    "gcn": (ModelSection(name="gcn", hidden=(6, 4)), (4, 7), torch.float32),
    "matrix_factorisation": (
        ModelSection(name="matrix_factorisation", vocabulary=9, embedding=4),
        (4,),
        IDS,
    ),
}


def build(case, seed=0):
    section, shape, dtype = CASES[case]
    generator = torch.Generator().manual_seed(seed)
    return build_model(
        section, input_shape=shape, classes=CLASSES, generator=generator, input_dtype=dtype
    )


def make_records(case, n, seed=0):
    _, shape, dtype = CASES[case]
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    if dtype == IDS:
        return torch.randint(0, CLASSES, (n, *shape), generator=generator), labels
    return torch.rand(n, *shape, generator=generator), labels


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [0, 1, 3])
def test_architecture_maps_any_batch_to_logits(case, n):
    logits = build(case)(make_records(case, n)[0])
    assert logits.shape == (n, CLASSES)
    assert logits.isfinite().all()


@pytest.mark.parametrize("case", CASES)
def test_clipped_sum_without_a_clip_is_autograds_gradient(case):
    model, (x, y) = build(case), make_records(case, 4)
    verify_private_model(model)
    loss = functional.cross_entropy(model(x), y, reduction="sum")
    expected = torch.autograd.grad(loss, list(model.parameters()))
    found, _ = make_book_keeper(model).compute_clipped_sum(x, y, max_grad_norm=1e9)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_clipped_sum_is_that_of_records_alone(case):
    model, (x, y) = build(case), make_records(case, 3)
    parameters, clip = list(model.parameters()), 0.05
    total = torch.zeros(sum(p.numel() for p in parameters))
    for one in range(3):
        loss = functional.cross_entropy(model(x[one : one + 1]), y[one : one + 1])
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        total += flat * min(1.0, clip / float(flat.norm()))
    found, _ = make_book_keeper(model).compute_clipped_sum(x, y, max_grad_norm=clip)
    ours = torch.cat([part.flatten() for part in found])
    assert (ours - total).norm() <= 1e-3 * total.norm()


@pytest.mark.parametrize("case", CASES)
def test_no_record_moves_anothers_logits_or_a_buffer(case):
    verify_records_independent(build(case), make_records(case, 4)[0])
    assert not list(build(case).buffers())


@pytest.mark.parametrize("case", CASES)
def test_description_builds_the_same_layers(case):
    section, shape, dtype = CASES[case]
    described = describe_architecture(
        section, input_shape=shape, classes=CLASSES, input_dtype=dtype
    )
    again = build_described_model(described, torch.Generator().manual_seed(0))
    for ours, theirs in zip(again.parameters(), build(case).parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("case", ["lstm", "gru", "transformer", "transformer_of_series"])
def test_prediction_at_a_position_does_not_see_later_ones(case):
    model, (x, _) = build(case).eval(), make_records(case, 2)
    changed = x.clone()
    changed[:, 4:] = 1 - changed[:, 4:]
    before, after = model.predict_positions(x), model.predict_positions(changed)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-6)
    assert torch.allclose(before[:, -1], model(x), atol=1e-6)


def test_id_beyond_the_vocabulary_is_read_as_its_last():
    model = build("lstm")
    assert torch.equal(model(torch.full((1, 7), 99)), model(torch.full((1, 7), CLASSES - 1)))


def test_nodes_that_are_not_there_change_nothing():
    section = ModelSection(name="gcn", hidden=(6,))
    small = torch.tensor([[[0.0, 1.0, 0.3], [1.0, 0.0, 0.7]]])
    large = torch.zeros(1, 4, 5)
    large[0, :2, :2], large[0, :2, 4] = small[0, :, :2], small[0, :, 2]
    models = [
        build_model(section, input_shape=shape, classes=2, generator=torch.Generator())
        for shape in ((2, 3), (4, 5))
    ]
    models[1].load_state_dict(models[0].state_dict())
    assert torch.allclose(models[0](small), models[1](large), atol=1e-6)


def test_normalised_weights_of_a_path_are_those_by_hand():
    path = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert torch.allclose(normalise(path, torch.ones(1, 2)), torch.full((1, 2, 2), 0.5))


def test_resnet_of_three_blocks_a_stage_has_the_size_of_its_paper():
    model = build_model(
        ModelSection(name="resnet", layers=3),
        input_shape=(3, 32, 32),
        classes=10,
        generator=torch.Generator(),
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(0.27e6, rel=0.02)  # He et al. 2016, table 6: ResNet-20


@pytest.mark.parametrize(
    ("section", "shape", "dtype", "text"),
    [
        (ModelSection(name="resnet"), (64,), torch.float32, "needs images"),
        (ModelSection(name="lstm"), (3, 8, 8), torch.float32, "needs sequences"),
        (ModelSection(name="lstm", hidden=()), (8,), IDS, "no layer"),
        (ModelSection(name="transformer", embedding=6, heads=4), (8,), IDS, "does not divide"),
        (ModelSection(name="gcn"), (4, 4), torch.float32, "needs graphs"),
        (ModelSection(name="matrix_factorisation"), (4,), IDS, "model.vocabulary is missing"),
        (ModelSection(name="matrix_factorisation"), (4,), torch.float32, "needs ids"),
        (ModelSection(name="mlp", heads=2), (4,), torch.float32, "model.heads has no effect"),
        (ModelSection(name="gcn"), (4,), IDS, "token ids"),
    ],
)
def test_architecture_that_does_not_fit_is_refused_in_one_line(section, shape, dtype, text):
    with pytest.raises(ConfigError, match=text) as caught:
        build_model(
            section,
            input_shape=shape,
            classes=CLASSES,
            generator=torch.Generator(),
            input_dtype=dtype,
        )
    assert "\n" not in str(caught.value)


def make_every(case):
    section, shape, dtype = CASES[case]
    return build_model(
        section.model_copy(update={"predict": "every"}),
        input_shape=shape,
        classes=CLASSES,
        generator=torch.Generator().manual_seed(0),
        input_dtype=dtype,
    )


@pytest.mark.parametrize("case", ["lstm", "gru", "transformer"])
def test_loss_of_every_position_is_the_mean_over_positions(case):
    model, (x, y) = make_every(case), make_records(case, 3)
    logits = model.eval().predict_positions(x)
    following = torch.cat([x[:, 1:], y[:, None]], 1)
    expected = functional.cross_entropy(logits.transpose(1, 2), following, reduction="none")
    loss = average_positions(functional.cross_entropy)
    losses = loss(model.train()(x), y, reduction="none")
    assert torch.allclose(losses, expected.mean(1), atol=1e-6)
    assert torch.allclose(loss(model(x), y), losses.mean(), atol=1e-6)
    assert torch.allclose(loss(model(x), y, reduction="sum"), losses.sum(), atol=1e-5)


@pytest.mark.parametrize("case", ["lstm", "gru", "transformer"])
def test_clipped_sum_of_every_position_is_that_of_records_alone(case):
    model, (x, y), clip = make_every(case), make_records(case, 3), 0.05
    loss, parameters = average_positions(functional.cross_entropy), list(model.parameters())
    total = torch.zeros(sum(p.numel() for p in parameters))
    for one in range(3):
        alone = loss(model(x[one : one + 1]), y[one : one + 1])
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(alone, parameters)])
        total += flat * min(1.0, clip / float(flat.norm()))
    found, _ = make_book_keeper(model, loss=loss).compute_clipped_sum(x, y, max_grad_norm=clip)
    assert (torch.cat([part.flatten() for part in found]) - total).norm() <= 1e-3 * total.norm()


AUTOENCODERS = ["autoencoder", "vae"]


def make_autoencoder(name):
    return build_model(
        ModelSection(name=name, hidden=(6, 2)),
        input_shape=(5,),
        classes=5,
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize("name", AUTOENCODERS)
@pytest.mark.parametrize("n", [0, 3])
def test_autoencoder_makes_records_again_in_use_without_chance(name, n):
    model = make_autoencoder(name).eval()
    records = torch.rand(n, 5)
    assert model(records).shape == (n, 5)
    assert torch.equal(model(records), model(records))


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_clipped_sum_of_an_autoencoder_is_autograds_gradient(name):
    model, records = make_autoencoder(name), torch.rand(4, 5)
    loss = add_divergence(lambda x, y, reduction: (x - y).square().mean(1))
    verify_private_model(model)
    torch.manual_seed(1)
    total = loss(model(records), records, reduction="none").sum()
    expected = torch.autograd.grad(total, list(model.parameters()))
    keeper = make_book_keeper(model, loss=loss)
    torch.manual_seed(1)
    found, _ = keeper.compute_clipped_sum(records, records, max_grad_norm=1e9)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def clip_each(losses, parameters, clip):
    """Return the sum of each loss's gradient, clipped, by a backward pass a record."""
    total = torch.zeros(sum(p.numel() for p in parameters))
    for loss in losses:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        flat = torch.cat([g.flatten() for g in gradients])
        total += flat * min(1.0, clip / float(flat.norm()))
    return total


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_clipped_sum_of_an_autoencoder_is_that_of_records_alone(name):
    model, records, clip = make_autoencoder(name), torch.rand(4, 5), 0.05
    loss = add_divergence(lambda x, y, reduction: (x - y).square().mean(1))
    torch.manual_seed(1)  # the same codes
    losses = loss(model(records), records, reduction="none")
    total = clip_each(losses, list(model.parameters()), clip)
    torch.manual_seed(1)
    found, _ = make_book_keeper(model, loss=loss).compute_clipped_sum(
        records, records, max_grad_norm=clip
    )
    assert (torch.cat([part.flatten() for part in found]) - total).norm() <= 1e-3 * total.norm()


LOSSES = {
    "focal": {"training": {"loss": "focal"}},
    "bce": {"training": {"loss": "bce"}},
    "smoothed": {"training": {"label_smoothing": 0.1}},
    "weighted": {"training": {"class_weights": [0.1, 1.0, 2.0, 3.0, 50.0]}},
    "huber": {"training": {"loss": "huber"}, "data": {"task": "masked"}},
    "quantile": {"training": {"loss": "quantile"}, "data": {"task": "masked"}},
    "mae": {"training": {"loss": "mae"}, "data": {"task": "masked"}},
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("lora", [None, ("*linear*",)], ids=["whole", "lora"])
def test_clipped_sum_is_that_of_records_alone_whatever_the_loss(name, lora):
    section = ModelSection(name="mlp", hidden=(6,), lora=lora, lora_rank=2 if lora else None)
    generator = torch.Generator().manual_seed(0)
    model = build_model(section, input_shape=(5,), classes=5, generator=generator)
    loss, x = build_loss(build_config(LOSSES[name])), torch.rand(4, 5, generator=generator)
    y = x if "data" in LOSSES[name] else torch.tensor([0, 4, 2, 4])
    trained = [p for p in model.parameters() if p.requires_grad]
    total = clip_each([loss(model(x[i : i + 1]), y[i : i + 1]) for i in range(4)], trained, 0.05)
    found, _ = make_book_keeper(model, loss=loss).compute_clipped_sum(x, y, max_grad_norm=0.05)
    assert (torch.cat([part.flatten() for part in found]) - total).norm() <= 1e-3 * total.norm()


def test_divergence_is_that_of_torchs_distributions():
    model, records = make_autoencoder("vae"), torch.rand(4, 5)
    inner = model.encoder(records)
    code = Normal(model.mean(inner), (model.log_variance(inner) / 2).exp())
    expected = kl_divergence(code, Normal(0.0, 1.0)).sum(1) / 5
    assert torch.allclose(model(records).divergence, expected, atol=1e-6)


def test_autoencoder_of_classes_is_refused():
    with pytest.raises(ConfigError, match=r"data\.task = 'anomaly'"):
        build_model(
            ModelSection(name="vae"), input_shape=(5,), classes=2, generator=torch.Generator()
        )
