"""Small models of every kind that has a rule of its own, for images, sequences and tokens."""

import torch
from torch import nn

STEPS, WIDTH, TOKENS, CLASSES = 5, 8, 11, 3


class Recurrent(nn.Module):
    """A recurrent layer; the mean of its outputs is classified."""

    def __init__(self, kind, **options):
        super().__init__()
        self.layer = kind(4, WIDTH, batch_first=True, **options)
        self.output = nn.Linear(WIDTH * (2 if options.get("bidirectional") else 1), CLASSES)

    def forward(self, x):
        return self.output(self.layer(x)[0].mean(1))


class Transformer(nn.Module):
    """Token and position embeddings, one of torch's encoder layers, a linear one."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS, WIDTH), nn.Embedding(STEPS, WIDTH)
        self.block = nn.TransformerEncoderLayer(WIDTH, 2, 12, dropout, batch_first=True)
        self.output = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        places = torch.arange(x.shape[1]).expand_as(x)
        return self.output(self.block(self.tokens(x) + self.places(places)).mean(1))


class Twice(nn.Module):
    """One linear layer used twice, and an embedding whose table is also the last layer's weight."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(CLASSES, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, CLASSES)
        self.output.weight = self.table.weight

    def forward(self, x):
        hidden = torch.tanh(self.layer(self.table(x % CLASSES)))
        return self.output(torch.tanh(self.layer(hidden)).mean(1))


SEQUENCES = (STEPS, 4)
MODELS = {
    "lstm": (lambda: Recurrent(nn.LSTM), SEQUENCES),
    "lstm_deep": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), SEQUENCES),
    "lstm_without_bias": (lambda: Recurrent(nn.LSTM, bias=False), SEQUENCES),
    "gru": (lambda: Recurrent(nn.GRU), SEQUENCES),
    "gru_deep": (lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True), SEQUENCES),
    "gru_without_bias": (lambda: Recurrent(nn.GRU, bias=False), SEQUENCES),
    "transformer": (Transformer, None),
    "twice": (Twice, None),
    "linear_in_place": (
        lambda: nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2, bias=False), nn.Flatten(),
            nn.ReLU(inplace=True), nn.Linear(10, CLASSES),
        ),
        SEQUENCES,
    ),
    "linear_wide": (
        lambda: nn.Sequential(nn.Linear(4, 40), nn.Tanh(), nn.Linear(40, 50), nn.Flatten(),
                              nn.Linear(250, CLASSES)),
        SEQUENCES,
    ),
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(4, 6, 2, padding="same", groups=2, dilation=2), nn.LayerNorm([6, 7]),
            nn.Tanh(), nn.Conv1d(6, 4, 3, stride=2, bias=False), nn.Flatten(),
            nn.LayerNorm(12, bias=False), nn.Linear(12, CLASSES),
        ),
        (4, 7),
    ),
    "conv2d": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, (2, 3), padding="same", padding_mode="circular"), nn.GroupNorm(2, 4),
            nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, stride=2, padding=(0, 1), groups=2),
            nn.Flatten(), nn.Linear(48, CLASSES),
        ),
        (2, 7, 8),
    ),
}  # fmt: skip


def make_model(name, seed=0):
    torch.manual_seed(seed)
    return MODELS[name][0]()


def make_batch(name, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    shape = MODELS[name][1]
    if shape is None:
        return torch.randint(0, TOKENS, (n, STEPS), generator=generator), labels
    return torch.randn(n, *shape, generator=generator), labels
