"""The page "Try it" in Chromium, from a server and from a file: Python's answers, and nothing leaves."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import axe_core_python
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fer_utils.demo.drawn_face import PROTOTYPES, Identity, View, draw_face
from fer_utils.demo.layouts import demo_faces
from fer_utils.prediction import Face, Predictor, predict
from fer_utils.video import overlap

pytestmark = pytest.mark.book

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "build" / "demo" / "html"
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
ANSWER = re.compile("^(One face|[0-9]+ faces|No face)")
SECONDS = 1000
# The faces on the page, as fer_utils' `Face` has them.
FACES = """() => [...document.querySelectorAll("article")].map((card, i) => {
    const rect = document.querySelectorAll("#boxes rect")[i];
    const [left, top, width, height] = ["x", "y", "width", "height"].map(k => Number(rect.getAttribute(k)));
    const pixels = card.querySelector("canvas").getContext("2d").getImageData(0, 0, 64, 64).data;
    return {
        box: [left, top, left + width, top + height],
        probabilities: [...card.querySelectorAll("data")].map(cell => Number(cell.value)),
        crop: [...pixels].filter((_, k) => k % 4 === 0),
    };
})"""
# Every way to send something that a script has.
SEND = """async address => {
    for (const options of [{}, {method: "POST", body: "x"}]) {
        await fetch(address, {mode: "no-cors", ...options}).catch(() => "refused");
    }
    try { navigator.sendBeacon(address, "x"); } catch { /* a file has no beacons */ }
    for (const kind of ["img", "script", "iframe"]) {
        document.body.append(Object.assign(document.createElement(kind), {src: address}));
    }
    const form = Object.assign(document.createElement("form"), {action: address, method: "post"});
    document.body.append(form);
    form.submit();
}"""
# Before the page starts: EasyNet, on a graphics adapter that says that it is none in software.
HARDWARE = """
    Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", {get: () => false});
    document.addEventListener("readystatechange", () => {
        if (document.readyState === "interactive") document.querySelector("[value=easynet]").checked = true;
    });
"""
AXE_FINDINGS = """async () => (await axe.run()).violations
    .map(v => v.id + ": " + v.nodes.map(n => n.html.slice(0, 120)).join(" | "))"""


def drawn(emotion: str, person: int, span: float = 1.9, side: int = 240) -> np.ndarray:
    who = Identity.draw(np.random.default_rng([2, person]))
    return draw_face(who, PROTOTYPES[emotion][0], View(span=span, background=0.5), (side, side))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Three drawn people of different sizes in a noisy picture in colour, as a camera may take it."""
    rng = np.random.default_rng(0)
    grey = np.linspace(90, 170, 1600) + 25 * np.sin(np.arange(1200) / 90)[:, None]
    for i, (emotion, side, x, y) in enumerate(
        [("happy", 640, 60, 300), ("surprise", 420, 820, 520), ("sad", 150, 1350, 200)]
    ):
        grey[y : y + side, x : x + side] = drawn(emotion, i, 1.8, side)
    colours = grey[..., None] * (1.08, 0.96, 0.85) + rng.normal(0, 4, (1200, 1600, 3))
    return Image.fromarray(colours.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photo: Image.Image) -> Path:
    """Pictures to ask about, and what the camera shows."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(demo_faces(["happy"], seed=3, size=64)[0]).save(folder / "crop.png")
    Image.fromarray(demo_faces(["surprise"], seed=4, size=230)[0]).save(folder / "filled.png")
    face = Image.fromarray(demo_faces(["surprise"], seed=4, size=230)[0])
    tall = Image.new("L", (230, 330), 128)
    tall.paste(face, (0, 50))  # fills the width, but not the picture
    tall.save(folder / "tall.png")
    face.resize((12, 12)).save(folder / "tiny.png")
    Image.fromarray(drawn("fear", 5)).save(folder / "drawn.png")
    photo.save(folder / "photo.png")
    turned, exif = photo.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", quality=92, exif=exif)
    turned.save(folder / "turned.webp", quality=92, exif=exif)
    photo.crop((0, 250, 1600, 950)).resize((4000, 1750)).save(folder / "large.jpg", quality=92)
    clear = Image.fromarray(drawn("neutral", 6)).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size).point(lambda v: min(255, 3 * v)))
    clear.save(folder / "clear.png")
    Image.fromarray(np.full((300, 400), 128, np.uint8)).save(folder / "nobody.png")
    (folder / "words.jpg").write_text("no picture")
    write_clip(folder / "camera.y4m")
    return folder


def clip_frame(step: int) -> np.ndarray:
    """What the camera sees: a surprised face that moves a little, to the right."""
    frame = np.full((480, 640), 128, np.uint8)
    frame[40:440, 100 + step : 500 + step] = drawn("surprise", 7, side=400)
    return frame


def write_clip(path: Path) -> None:
    """The camera's frames as uncompressed video."""
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n")
        for step in range(10):
            file.write(b"FRAME\n" + clip_frame(step).tobytes() + bytes([128]) * (640 * 480 // 2))


@pytest.fixture(scope="module")
def browser(folder: Path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: the page was not tried")
    if not (HTML / "try" / "data" / "wasm.js").exists():
        pytest.skip("this book was built without a network: the page has no networks to run")
    flags = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
    flags += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags += [f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server():
    """The book below a path of a static server."""

    paths, replies = [], {}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            return super().translate_path(path.removeprefix("/some/path"))

        def do_GET(self) -> None:
            if self.path not in replies:
                return super().do_GET()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(replies[self.path])

        def log_message(self, *_: object) -> None:
            paths.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=HTML)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hosts = {"address": "localhost", "elsewhere": "127.0.0.1"}
        addresses = {key: f"http://{host}:{server.server_port}" for key, host in hosts.items()}
        yield SimpleNamespace(paths=paths, replies=replies, **addresses)
        server.shutdown()


def opened(browser: Browser, address: str, **options: object) -> SimpleNamespace:
    """A new page, with what it asks for and complains of."""
    page = browser.new_page(**options)
    asked, trouble = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda message: message.type == "error" and trouble.append(message.text))
    page.goto(address)
    return SimpleNamespace(page=page, asked=asked, trouble=trouble)


@pytest.fixture(scope="module", params=["http", "file"])
def visit(request: pytest.FixtureRequest, browser: Browser, server: str):
    path = "try/index.html"
    address = f"{server.address}/some/path/{path}" if request.param == "http" else (HTML / path).as_uri()
    visit = opened(browser, address)
    expect(visit.page.get_by_role("status")).to_contain_text("Ready", timeout=120 * SECONDS)
    yield visit
    visit.page.close()


def answers(page: Page) -> list[Face]:
    """What the page says when it has looked."""
    expect(page.get_by_role("status")).to_have_text(ANSWER, timeout=60 * SECONDS)
    return [
        Face(
            "",
            tuple(f["box"]),
            1.0,
            np.array(f["probabilities"]),
            np.array(f["crop"], np.uint8).reshape(64, 64),
        )
        for f in page.evaluate(FACES)
    ]


def choose(page: Page, network: str) -> None:
    page.get_by_role("radio", name=network).check()


PICTURES = {
    "crop.png": 1, "filled.png": 1, "tall.png": 1, "tiny.png": 0, "drawn.png": 1, "clear.png": 1,
    "photo.png": 3, "turned.jpg": 3, "turned.webp": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_page_answers_as_python(visit, folder, name):
    expected = predict(folder / name)
    visit.page.set_input_files("#file", folder / name)
    found = answers(visit.page)
    assert len(found) == len(expected) == PICTURES[name]
    tolerance = 0.02 if name.startswith(("turned", "clear")) else 1e-3  # decoded, or blended, by other code
    for mine, theirs in zip(found, expected, strict=True):
        assert overlap(mine.box, theirs.box) >= (0.9 if tolerance > 0.01 else 0.999)
        assert mine.probabilities == pytest.approx(theirs.probabilities, abs=tolerance)
        assert mine.probabilities.sum() == pytest.approx(1, abs=1e-5)
        if tolerance < 0.01:
            assert np.abs(mine.crop.astype(int) - theirs.crop).max() <= 1


def test_large_photo_is_reduced_for_the_detector_only(visit, folder):
    visit.page.set_input_files("#file", folder / "large.jpg")
    for mine, theirs in zip(answers(visit.page), predict(folder / "large.jpg"), strict=True):
        assert overlap(mine.box, theirs.box) >= 0.9
        assert mine.probabilities == pytest.approx(theirs.probabilities, abs=0.02)


def test_other_network_looks_at_the_same_picture_again(visit, folder):
    visit.page.set_input_files("#file", folder / "crop.png")
    answers(visit.page)
    networks = {"EasyNet, faster": "easynet", "EasyNet, small": "easynet-small", "FaceNet": "facenet"}
    for label, name in networks.items():
        choose(visit.page, label)
        expected = Predictor(name).predict(folder / "crop.png")
        assert answers(visit.page)[0].probabilities == pytest.approx(expected[0].probabilities, abs=1e-3)


def test_no_face_no_answer(visit, folder):
    visit.page.set_input_files("#file", folder / "nobody.png")
    assert answers(visit.page) == []


def test_what_is_no_picture_gets_a_plain_word(visit, folder):
    visit.page.set_input_files("#file", folder / "words.jpg")
    expect(visit.page.get_by_role("status")).to_contain_text("cannot read the file as a picture")
    expect(visit.page.get_by_role("article")).to_have_count(0)


def test_photo_may_be_dropped(visit, folder):
    visit.page.evaluate(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "drawn.png", {type: "image/png"}));
            document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
        }""",
        list((folder / "drawn.png").read_bytes()),
    )
    assert len(answers(visit.page)) == 1


def test_keyboard_is_enough(visit):
    page, reached = visit.page, []
    page.get_by_role("link", name="Reading Faces").focus()
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.parentElement.id"))
    assert reached == ["file", "camera", "samples", "samples"]
    page.keyboard.press("Enter")
    assert len(answers(page)) == 1


def test_camera_is_answered_live(visit):
    page = visit.page
    page.get_by_role("button", name="Start the camera").click()
    expect(page.get_by_role("status")).to_contain_text("The camera sees surprise", timeout=60 * SECONDS)
    face, predictor = page.evaluate(FACES)[0], Predictor()
    box = tuple(face["box"])
    frames = [predictor.predict(clip_frame(step), cropped=False, min_face=60)[0] for step in range(10)]
    expected = max(frames, key=lambda face: overlap(box, face.box))
    assert overlap(box, expected.box) >= 0.9
    assert face["probabilities"] == pytest.approx(expected.probabilities, abs=0.1)  # of a frame near by
    shown = "document.querySelector('#boxes').innerHTML"
    before = page.evaluate(shown)
    expect(page.locator("#boxes rect")).not_to_have_attribute("x", re.search(r'x="([^"]+)', before)[1])
    page.get_by_role("button", name="Stop the camera").click()
    expect(page.get_by_role("status")).to_have_text("The camera is off.")
    assert page.evaluate("document.querySelector('video').srcObject") is None


def test_nothing_leaves_the_page(visit, server):
    """The last test of a page: nothing was asked for elsewhere, and the policy refuses to send it there."""
    here = visit.page.url.rsplit("/", 1)[0]
    assert all(url.startswith((here, "blob:")) for url in visit.asked), visit.asked
    assert not visit.trouble
    server.paths.clear()
    visit.page.evaluate(SEND, f"{server.elsewhere}/leak")
    visit.page.wait_for_timeout(500)
    assert visit.page.url.endswith("try/index.html")
    assert server.paths == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 400])
def test_page_suits_every_reader(browser, scheme, width):
    address = (HTML / "try" / "index.html").as_uri()
    visit = opened(browser, address, color_scheme=scheme, viewport={"width": width, "height": 850})
    visit.page.get_by_role("button", name="drawn face: happy").click()
    assert len(answers(visit.page)) == 1
    shown, boxes = (visit.page.locator(name).bounding_box() for name in ("#shown", "#boxes"))
    assert shown == pytest.approx(boxes, abs=1)
    visit.page.evaluate(AXE)
    assert visit.page.evaluate(AXE_FINDINGS) == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    visit.page.close()


def test_page_says_so_without_webassembly(browser):
    page = browser.new_page()
    page.add_init_script("delete globalThis.WebAssembly")
    page.goto((HTML / "try" / "index.html").as_uri())
    expect(page.get_by_role("status")).to_contain_text("has no WebAssembly")
    page.close()


def test_camera_that_is_refused_may_be_tried_again(browser):
    page = browser.new_page()
    refusal = "navigator.mediaDevices.getUserMedia = async () => { throw new Error('not allowed'); }"
    page.add_init_script(refusal)
    page.goto((HTML / "try" / "index.html").as_uri())
    for _ in range(2):
        page.get_by_role("button", name="Start the camera").click()
        expect(page.get_by_role("status")).to_contain_text("No camera could be opened (not allowed)")
    page.close()


def test_graphics_processor_that_fails_is_no_hindrance(browser, folder):
    page = browser.new_page()
    page.add_init_script(HARDWARE)
    page.route("**/data/webgpu.js", lambda route: route.abort())
    page.goto((HTML / "try" / "index.html").as_uri())
    page.set_input_files("#file", folder / "drawn.png")
    assert len(answers(page)) == 1
    expect(page.get_by_text("The network runs on WebAssembly")).to_be_visible()
    page.close()


def test_network_runs_on_webgpu(browser, folder):
    """On an adapter in software, which the page would not take if it knew."""
    page = browser.new_page()
    page.add_init_script(HARDWARE)
    page.goto((HTML / "try" / "index.html").as_uri())
    page.set_input_files("#file", folder / "crop.png")
    expected = Predictor("easynet").predict(folder / "crop.png")
    expect(page.get_by_role("status")).to_have_text(ANSWER, timeout=150 * SECONDS)
    assert answers(page)[0].probabilities == pytest.approx(expected[0].probabilities, abs=1e-3)
    expect(page.get_by_text("The network runs on WebGPU")).to_be_visible()
    page.close()


def build(*arguments: object, registry: str = "http://127.0.0.1:9") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "book" / "try" / "build.py", *map(str, arguments)],
        env=os.environ | {"NPM_CONFIG_REGISTRY": registry, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_page_built_without_a_network_says_so(browser, tmp_path):
    fetched = build("fetch", tmp_path / "package.tgz")
    assert fetched.returncode == 0 and "will not work" in fetched.stdout
    assert build("page", tmp_path / "package.tgz", tmp_path / "try").returncode == 0
    page = browser.new_page()
    page.goto((tmp_path / "try" / "index.html").as_uri())
    expect(page.get_by_role("status")).to_contain_text("wasm.js is missing")
    page.close()


def test_another_package_than_the_tested_one_is_refused(server, tmp_path):
    name = "onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
    server.replies[f"/{name}"] = b"something else"
    fetched = build("fetch", tmp_path / "package.tgz", registry=server.address)
    assert fetched.returncode == 1 and "is not the onnxruntime-web" in fetched.stderr
    assert not list(tmp_path.iterdir())
