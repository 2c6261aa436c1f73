"""Pictures from files, bytes, Pillow images and arrays as they are meant to be seen: upright, 8 bits, RGB."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_utils.errors import DataError

LARGEST = 100_000_000  # pixels: what a larger picture needs in memory is more than most machines have
WHITE_IS_ZERO = 262, 0  # TIFF's tag PhotometricInterpretation, and its value for inverted greys
# Names of files that are looked for in folders.
_NAMES = "png jpg jpeg jpe webp tif tiff gif bmp ppm pgm heic heif avif"
FORMATS = frozenset(f".{name}" for name in _NAMES.split())
VIDEOS = frozenset(
    f".{name}" for name in ["mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv", "3gp"]
)


def read_picture(picture: Any) -> np.ndarray:
    """Read a picture of any kind.

    Args:
        picture: a path; the bytes of a file; a Pillow image; or an array, uint8 (H, W) grey or (H, W, 3) RGB.

    Returns:
        uint8 (H, W, 3), RGB, turned as its EXIF orientation says (a damaged EXIF block is ignored), 16 bits
        scaled to 8, transparency on white, the first frame of several.

    Raises:
        DataError: it is missing, no picture, damaged, or larger than 100 megapixels.
    """
    if isinstance(picture, np.ndarray):
        return _array(picture)
    if isinstance(picture, Image.Image):
        return _pixels(picture)
    file = None if isinstance(picture, bytes) else Path(picture)
    _register_heif()
    try:
        with Image.open(io.BytesIO(picture) if file is None else file) as image:
            if image.width * image.height > LARGEST:
                raise Image.DecompressionBombError
            return _pixels(image)
    except Image.DecompressionBombError:
        raise DataError(
            f"the picture has more than {LARGEST // 1_000_000} megapixels",
            file=file,
            remedy="make it smaller first",
        ) from None
    except UnidentifiedImageError:
        raise DataError("this is no picture that can be read", file=file, remedy=_remedy(file)) from None
    except FileNotFoundError:
        raise DataError("there is no such file", file=file, remedy="check the path") from None
    except Exception as error:  # on damaged files, Pillow's decoders raise whatever their parsers meet
        raise DataError(f"the picture is damaged ({error})", file=file, remedy="get the file again") from None


def _pixels(image: Image.Image) -> np.ndarray:
    inverted = image.mode.startswith("I;16") and _tag(image, WHITE_IS_ZERO[0]) == WHITE_IS_ZERO[1]
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:
        image = image.copy()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, np.float64)
        values = 65535 - values if inverted else values
        top = 65535 if values.max() > 255 else 255
        grey = (values.clip(0, top) * (255 / top)).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return np.asarray(image.convert("RGB"))


def _array(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise DataError(
            f"an array of type {pixels.dtype} and shape {pixels.shape} is no picture",
            remedy="give uint8 (H, W) grey or (H, W, 3) RGB, 0–255",
        )
    return np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels


def _tag(image: Image.Image, number: int) -> Any:
    return getattr(image, "tag_v2", {}).get(number)


def _register_heif() -> None:
    """HEIC is read where the package pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _remedy(file: Path | None) -> str:
    if file is not None and file.suffix.lower() in VIDEOS:
        return "this is the name of a video; `fer predict` reads those, and `fer_utils.video.predict_video`"
    if file is not None and file.suffix.lower() in (".heic", ".heif"):
        return "`pip install pillow-heif`, or convert it to JPEG"
    return "give a picture: PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF"
