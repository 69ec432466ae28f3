"""A folder of images: `class/*.png`, or `site/class/*.png`.

Shapes: n images, c channels, h x w pixels.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fedtrain.data.array_files import PIXEL_RANGE
from fedtrain.data.columns import encode_values
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records
from fedtrain.errors import DataError

logger = logging.getLogger("fedtrain.data")

_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
_GREY_MODES: Final = frozenset({"1", "L"})


def load_image_folder(
    path: Path, size: tuple[int, int] | None, *, protected: bool = False, strict: bool = True
) -> Records:
    """Read every image below a folder; its folder is its class, the one above that its site.

    Args:
        path: The folder.
        size: Height and width to resize to; None: all must have one size.
        protected: Whether an image must change nothing of the others: all have three channels then.
        strict: Refuse an image that cannot be read; else it is left out.

    Returns:
        Features uint8 `(n, c, h, w)`, c = 1 where all images are grey and 3 otherwise.

    Raises:
        DataError: There is no image, one cannot be read, or sizes differ.
    """
    files = sorted(
        file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file()
    )
    parts = [file.relative_to(path).parts for file in files]
    depth = max((len(part) for part in parts), default=0)
    if depth not in (2, 3) or any(len(part) != depth for part in parts):
        raise DataError(
            f"{path}: images must lie in class/ or all in site/class/ folders; check data.path"
        )
    images = _read_images(files, size, strict=strict)
    if not images:
        raise DataError(f"{path}: no image can be read; check data.path")
    parts = [parts[index] for index in images]
    features = _stack(list(images.values()), colour=protected)
    return Records(
        features=features,
        labels=encode_values(np.array([part[-2] for part in parts])),
        public=PublicConstants(input_shape=features.shape[1:], value_range=PIXEL_RANGE),
        sites=encode_values(np.array([part[0] for part in parts])) if depth == 3 else None,
    )


def _read_images(
    files: Sequence[Path], size: tuple[int, int] | None, *, strict: bool
) -> dict[int, NDArray[np.uint8]]:
    """Return the images by their places among the files."""
    images: dict[int, NDArray[np.uint8]] = {}
    for index, file in enumerate(files):
        try:
            images[index] = _read_image(file, size)
        except DataError:
            if strict:
                raise
    if len(images) < len(files):
        logger.warning("event=unreadable_images_left_out")
    first = next(iter(images.values()), None)
    for index, image in images.items():
        if first is not None and image.shape[:2] != first.shape[:2]:
            height, width = first.shape[:2]
            raise DataError(
                f"{files[index].name} has {image.shape[0]}x{image.shape[1]} pixels, others"
                f" {height}x{width}; set data.image_size = [{height}, {width}]"
            )
    return images


def _stack(images: Sequence[NDArray[np.uint8]], *, colour: bool) -> NDArray[np.uint8]:
    if not colour and all(image.ndim == 2 for image in images):
        return np.stack(images)[:, None]
    coloured = [
        np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image for image in images
    ]
    return np.ascontiguousarray(np.stack(coloured).transpose(0, 3, 1, 2))


def _read_image(file: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return `(h, w)` for a grey image and `(h, w, 3)` for any other."""
    try:
        with Image.open(file) as image:
            plain = image.convert("L" if image.mode in _GREY_MODES else "RGB")
            if size is not None:
                plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(plain)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{file.name}: cannot be read as an image; replace or remove it") from error
