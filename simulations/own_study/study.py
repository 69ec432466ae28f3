"""An example of your own data and your own model: faults of pumps, heard at five plants.

`study.toml` names the two functions of this module that fedtrain calls. Copy the folder, put your
own data behind `load_windows` and your own network behind `build_network`, and run it from there:

    fedtrain check study.toml        what would run, and what it would cost in epsilon
    fedtrain simulate study.toml     train

Shapes: n windows of one plant, each of `SAMPLES` samples.
"""

import numpy as np
from numpy.typing import NDArray
from torch import nn

SAMPLES = 64  # at 1 kHz: a window lasts 64 ms
RATE = 1000.0
# Plant, number of windows, and how often its pumps turn, in Hz: no two plants are alike.
PLANTS = (
    ("Aachen", 700, 48.0),
    ("Bilbao", 500, 41.0),
    ("Cork", 600, 55.0),
    ("Delft", 400, 44.0),
    ("Évora", 800, 51.0),
)
FAULTS = ("healthy", "imbalance", "bearing")


def load_windows() -> dict[str, tuple[NDArray[np.float32], NDArray[np.str_]]]:
    """Return the windows of every plant: what `data.source` names.

    A dict from site name to (features, labels) is a natural partition: each plant stays one site.
    A plain (features, labels) is dealt to sites by any other scheme. A function that takes one
    argument is given `data.path`.

    Returns:
        By plant: features `(n, 1, SAMPLES)` float32, one channel; labels `(n,)`, texts.
    """
    return {
        name: _make_plant(np.random.default_rng(seed), windows, turning=turning)
        for seed, (name, windows, turning) in enumerate(PLANTS)
    }


def build_network(input_shape: tuple[int, ...], classes: int, width: int = 16) -> nn.Module:
    """Return the network: what `model.name` names.

    GroupNorm and not BatchNorm: under differential privacy no record's output may depend on
    another record of its batch, and fedtrain refuses a network in which it does.

    Args:
        input_shape: Shape of one record; fedtrain gives it, here `(1, SAMPLES)`.
        classes: Number of logits; fedtrain gives it.
        width: Channels; from `model.options`.
    """
    return nn.Sequential(
        nn.Conv1d(input_shape[0], width, kernel_size=9, stride=2, padding=4),
        nn.GroupNorm(4, width),
        nn.ReLU(),
        nn.Conv1d(width, width, kernel_size=9, stride=2, padding=4),
        nn.GroupNorm(4, width),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),  # the mean over time: when a burst comes does not matter
        nn.Flatten(),
        nn.Linear(width, classes),
    )


def _make_plant(
    generator: np.random.Generator, windows: int, *, turning: float
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Draw the windows of one plant.

    A window is the tone of the shaft at a random phase, its first harmonic and white noise. An
    imbalance makes the tone more than twice as loud; a worn bearing adds short bursts at 220 Hz,
    3.6 of them a turn.
    """
    labels = generator.choice(len(FAULTS), size=windows, p=(0.5, 0.25, 0.25))
    time = np.arange(SAMPLES) / RATE
    speed = turning * generator.uniform(0.95, 1.05, (windows, 1))
    angle = 2 * np.pi * (speed * time + generator.random((windows, 1)))
    loudness = np.where(labels == 1, 1.2, 0.5)[:, None]
    signal = loudness * np.sin(angle) + 0.3 * np.sin(2 * angle)
    since_burst = (3.6 * angle / (2 * np.pi)) % 1 / (3.6 * speed)
    burst = np.exp(-since_burst * 400) * np.sin(2 * np.pi * 220 * since_burst)
    signal += np.where(labels == 2, 1.4, 0.0)[:, None] * burst
    signal += generator.normal(scale=0.5, size=signal.shape)
    return signal[:, None].astype(np.float32), np.array(FAULTS)[labels]
