"""The start model of `digits_transfer` and `digits_continual`: of digits that a computer drew.

    python -m simulations.starts.digits

writes beside this file `digits.safetensors`, the model with the importance of its parameters, and
`digits.npz`, drawn digits that it was not trained on. No handwriting is in either: the ten digits
of the fonts that matplotlib brings, turned, sheared and moved by random amounts, on 32 x 32 points
that are counted in blocks of 4 x 4, as the handwritten ones of scikit-learn were.

Shapes: n records.
"""

from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional

from fedtrain.config import ModelSection
from fedtrain.models.registry import build_model
from fedtrain.models.start import IMPORTANCE
from fedtrain.training.memory import compute_importance

FILE: Final = Path(__file__).with_name("digits.safetensors")
TEST_FILE: Final = FILE.with_suffix(".npz")
SECTION: Final = ModelSection(name="mlp", hidden=(64,), activation="tanh")
_FONTS: Final = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral")
_RECORDS: Final = 20_000
_WEIGHED: Final = 1000
_TESTED: Final = 1000
_STEPS: Final = 3000
_BATCH: Final = 128


def draw_digits(count: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return drawn digits `(n, 1, 8, 8)` in [0, 1], and which they are `(n,)`."""
    generator = np.random.default_rng(seed)
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(str(folder / f"{name}.ttf"), 30) for name in _FONTS]
    labels = generator.integers(0, 10, count)
    images = np.stack(
        [_draw(str(label), fonts[generator.integers(len(fonts))], generator) for label in labels]
    )
    return images[:, None], labels.astype(np.int64)


def _draw(
    text: str, font: ImageFont.FreeTypeFont, generator: np.random.Generator
) -> NDArray[np.float32]:
    image = Image.new("L", (64, 64))
    ImageDraw.Draw(image).text((32, 32), text, fill=255, font=font, anchor="mm")
    box = image.getbbox() or (0, 0, 64, 64)
    width, height = generator.uniform(14, 30), generator.uniform(26, 32)
    glyph = image.crop(box).resize((round(width), round(height)))
    canvas = Image.new("L", (32, 32))
    canvas.paste(glyph, ((32 - glyph.width) // 2, (32 - glyph.height) // 2))
    shear, move = generator.uniform(-0.35, 0.35), generator.uniform(-2, 2, 2)
    canvas = canvas.transform(
        (32, 32),
        Image.Transform.AFFINE,
        (1, shear, move[0] - 16 * shear, 0, 1, move[1]),
        Image.Resampling.BILINEAR,
    ).rotate(generator.uniform(-12, 12), Image.Resampling.BILINEAR)
    points = np.asarray(canvas) > generator.uniform(60, 180)
    blocks: NDArray[np.float32] = points.reshape(8, 4, 8, 4).mean(axis=(1, 3), dtype=np.float32)
    return blocks


def train(*, seed: int = 0) -> torch.nn.Module:
    """Return the model, trained on drawn digits alone."""
    x, y = (torch.from_numpy(array) for array in draw_digits(_RECORDS, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    model = build_model(SECTION, input_shape=(1, 8, 8), classes=10, generator=generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-4)
    for _ in range(_STEPS):
        chosen = torch.randint(len(y), (_BATCH,), generator=generator)
        optimiser.zero_grad()
        loss = functional.cross_entropy(model(x[chosen]), y[chosen], label_smoothing=0.1)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained = train()
    state = {name: tensor.detach().clone() for name, tensor in trained.state_dict().items()}
    importance = compute_importance(trained, draw_digits(_WEIGHED, seed=0)[0])
    state |= {f"{IMPORTANCE}{name}": tensor for name, tensor in importance.items()}
    FILE.write_bytes(safetensors.torch.save(state))
    images, digits = draw_digits(_TESTED, seed=1)
    np.savez_compressed(TEST_FILE, x=(images * 16).astype(np.uint8), y=digits)
