"""Pictures from files, bytes, Pillow images and arrays as they are meant to be seen: upright, 8 bits, RGB."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_utils.errors import DataError

LARGEST = 100_000_000  # pixels: what a larger picture needs in memory is more than most machines have
INTERPRETATION, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and its value for inverted greys
# Names of files that are looked for in folders.
FORMATS = (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".pgm")
FORMATS += (".heic", ".heif", ".avif")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp")


def read_picture(picture: Any) -> np.ndarray:
    """Read a path, the bytes of a file, a Pillow image, or an array, uint8 (H, W) grey or (H, W, 3) RGB.

    Gives uint8 (H, W, 3), RGB, turned as the EXIF orientation says (a damaged EXIF block is ignored), 16 bits
    scaled to 8, transparency on white, the first frame of several. A DataError is raised where the picture is
    missing, none, damaged, or larger than 100 megapixels.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
            raise DataError(
                f"an array of type {picture.dtype} and shape {picture.shape} is no picture",
                remedy="give uint8 (H, W) grey or (H, W, 3) RGB, 0–255",
            )
        picture = Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        return _pixels(picture)
    file = None if isinstance(picture, bytes) else Path(picture)
    with suppress(ImportError):  # HEIC is read where this package is installed
        import pillow_heif

        pillow_heif.register_heif_opener()
    try:
        # Not by its path: Pillow 13 does not turn an uncompressed TIFF that it maps into memory.
        with io.BytesIO(picture) if file is None else file.open("rb") as data, Image.open(data) as image:
            if image.width * image.height > LARGEST:
                raise Image.DecompressionBombError
            return _pixels(image)
    except Image.DecompressionBombError:
        problem = f"the picture has more than {LARGEST // 1_000_000} megapixels"
        raise DataError(problem, file=file, remedy="make it smaller first") from None
    except UnidentifiedImageError:
        raise DataError("this is no picture that can be read", file=file, remedy=_remedy(file)) from None
    except FileNotFoundError:
        raise DataError("there is no such file", file=file, remedy="check the path") from None
    except Exception as error:  # on damaged files, Pillow's decoders raise whatever their parsers meet
        raise DataError(f"the picture is damaged ({error})", file=file, remedy="get the file again") from None


def _pixels(image: Image.Image) -> np.ndarray:
    deep = image.mode.startswith("I;16")
    inverted = deep and getattr(image, "tag_v2", {}).get(INTERPRETATION) == WHITE_IS_ZERO
    image.load()
    with suppress(Exception):  # a damaged EXIF block
        image = ImageOps.exif_transpose(image)
    if deep or image.mode in ("I", "F"):
        values = np.asarray(image, np.float64)
        values = 65535 - values if inverted else values  # which Pillow does for 8 bits alone
        top = 65535 if values.max() > 255 else 255
        image = Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _remedy(file: Path | None) -> str:
    ending = "" if file is None else file.suffix.lower()
    if ending in VIDEOS:
        return "this is the name of a video; `fer predict` reads those, and `fer_utils.video.predict_video`"
    if ending in (".heic", ".heif"):
        return "`pip install pillow-heif`, or convert it to JPEG"
    return "give a picture: PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF"
