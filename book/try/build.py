"""Assembles the page "Try it": `build.py fetch PACKAGE`, `build.py page PACKAGE FOLDER`.

The page opens from `file://` too, where scripts are all that a browser loads. So networks, pictures and
onnxruntime-web become scripts that hold them compressed, as base64.
"""

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

from fer_utils.demo.drawn_face import PROTOTYPES, Identity, View, draw_face
from fer_utils.detector import NETWORKS, session
from fer_utils.emotions import CLASSES
from fer_utils.files import atomic_path

HERE = Path(__file__).parent
VERSION = "1.30.0"
# SHA-512, as npm writes it in lock files.
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The parts of onnxruntime-web for WebAssembly alone, and for WebGPU where WebAssembly can wait for it (JSPI).
RUNTIMES = {
    "wasm": ("ort.wasm.min.js", "ort-wasm-simd-threaded"),
    "webgpu": ("ort.jspi.min.js", "ort-wasm-simd-threaded.jspi"),
}
CROWD = (("happy", 2.0), ("surprise", 2.5), ("neutral", 3.1))  # who is in the drawn photo, and how far away


def main(arguments: list[str]) -> None:
    """Run one of the two commands."""
    match arguments:
        case ["fetch", package]:
            fetch(Path(package))
        case ["page", package, folder]:
            page(Path(package), Path(folder))
        case _:
            raise SystemExit(__doc__)


def fetch(package: Path) -> None:
    """Download onnxruntime-web, unless it is there, from this machine's npm registry, or say why not."""
    if package.exists():
        if intact(package.read_bytes()):
            return package.touch()
        package.unlink()
    try:
        address = f"{registry().rstrip('/')}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
        with urllib.request.urlopen(address, timeout=60) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        print(f'the page "Try it" will not work: onnxruntime-web could not be fetched ({error}).')
        print("The next `make book` tries again.")
        return
    if not intact(content):
        raise SystemExit(f"{address} is not the onnxruntime-web {VERSION} that this book was tested with")
    package.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(package) as aside:
        aside.write_bytes(content)


def intact(content: bytes) -> bool:
    """Whether this is the package that the book was tested with."""
    return base64.b64encode(hashlib.sha512(content).digest()).decode() == INTEGRITY


def registry() -> str:
    """The npm registry that the environment or npm names."""
    if address := os.environ.get("NPM_CONFIG_REGISTRY"):
        return address
    try:
        command = ["npm", "config", "get", "registry"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise OSError("install npm, or set NPM_CONFIG_REGISTRY") from None


def page(package: Path, folder: Path) -> None:
    """Write the page and all that it loads; without the package, it says that it cannot work."""
    shutil.copytree(
        HERE, folder, ignore=shutil.ignore_patterns("*.py", "engine.js", "__pycache__"), dirs_exist_ok=True
    )
    shutil.copy(HERE.parent / "images" / "favicon.ico", folder)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    write(data / "page.js", classes=CLASSES, samples=samples(), sideways=encoded(sideways_webp()))
    if not package.exists():
        return
    with tarfile.open(package) as files:
        for name, (script, binary) in RUNTIMES.items():
            paths = {"script": script, "loader": f"{binary}.mjs", "binary": f"{binary}.wasm"}
            parts = {key: encoded(read(files, path)) for key, path in paths.items()}
            write(data / f"{name}.js", **parts)
    detector = {stage: encoded((NETWORKS / f"mtcnn-{stage}.onnx").read_bytes()) for stage in "pro"}
    engine = (HERE / "engine.js").read_bytes()
    write(data / "detector.js", engine=encoded(engine), **detector)
    for name in ("facenet", "easynet", "easynet-small"):
        path = NETWORKS / f"{name}.onnx"
        temperature = session(path, 1).get_modelmeta().custom_metadata_map["temperature"]
        write(data / f"{name}.js", network=encoded(path.read_bytes()), temperature=float(temperature))


def read(files: tarfile.TarFile, name: str) -> bytes:
    """A file of the package."""
    member = files.extractfile(f"package/dist/{name}")
    assert member is not None, name
    return member.read()


def encoded(content: bytes) -> str:
    """Bytes as the page unpacks them."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def write(path: Path, **values: object) -> None:
    """A script that adds values to the global object `packed`, under the script's own name."""
    text = json.dumps(values, separators=(",", ":"))
    path.write_text(f'(globalThis.packed ??= {{}})["{path.stem}"] = {text};\n', encoding="utf-8")


def samples() -> list[dict[str, str]]:
    """Drawn pictures to try: one of each class, and one of three people."""
    crowd = np.hstack([drawn(name, 10 + i, span, (480, 260)) for i, (name, span) in enumerate(CROWD)])
    pictures = [("three drawn people", crowd)]
    pictures += [(f"drawn face: {name}", drawn(name, i, 1.9, (240, 240))) for i, name in enumerate(CLASSES)]
    return [{"name": name, "picture": encoded(png(pixels))} for name, pixels in pictures]


def drawn(emotion: str, person: int, span: float, shape: tuple[int, int]) -> np.ndarray:
    """Somebody who shows an emotion as most people do: uint8 of `shape`."""
    view = View(span=span, background=0.62)
    return draw_face(Identity.draw(np.random.default_rng([1, person])), PROTOTYPES[emotion][0], view, shape)


def png(pixels: np.ndarray) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return file.getvalue()


def sideways_webp() -> bytes:
    """A picture two wide and one high, to be turned: browsers differ in whether they do."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2, 1)).save(file, "webp", exif=exif)
    return file.getvalue()


if __name__ == "__main__":
    main(sys.argv[1:])
