"""The page of `deepavfusion demo` in headless Chromium, with real clicks: what it shows, and where its requests go."""

import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepavfusion import DeepAVFusionProcessor
from deepavfusion.inference.demo.space import export_space
from tests.inference.test_commands import MEDIA, MODELS
from tests.isolated import hub_environment
from tests.media_factory import paint_gradients, write_kinds, write_media
from tests.modeling_deepavfusion.cases import make_model

pytestmark = [pytest.mark.ecosystem, pytest.mark.timeout(1200)]

WAIT = 240_000  # milliseconds, on a busy machine
LONG = "a <b>name<i> & " + "long" * 25
# The editable installation of this package, which would be found before the code beside app.py.
APP = """
import runpy, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder)]
sys.argv = sys.argv[1:]
sys.path[0] = "."
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    names = {"classify": {"id2label": {0: "<i>cello</i>", 1: "flute " * 12, 2: "c"}}}
    for seed, (name, (model_class, overrides)) in enumerate(MODELS.items()):
        model = make_model(model_class, seed=seed, **overrides, **names.get(name, {}))
        model.save_pretrained(folder / name)
        DeepAVFusionProcessor.from_model(model).save_pretrained(folder / name)
    write_kinds(folder, seconds=1.5, sound_seconds=1.5, silent_seconds=0.5, rate=16000, picture="cello.png")
    write_media(folder / f"{LONG[:90]}.mp4", seconds=1.5, size=(640, 96), paint=lambda time: _wide(time, 96, 640))
    write_media(folder / "upright.mp4", seconds=1.5, size=(96, 640), paint=lambda time: _wide(time, 640, 96))
    write_media(folder / "minutes.mp4", seconds=90, fps=1)
    return folder


def _wide(time: float, height: int, width: int) -> np.ndarray:
    frame = paint_gradients(time)
    return np.tile(frame, (-(-height // 48), -(-width // 64), 1))[:height, :width]


class Server:
    """A process that serves the page, until the block ends."""

    def __init__(self, *command: str, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.place = tempfile.TemporaryDirectory()
        environment = {**hub_environment(folder / "home"), "TMPDIR": self.place.name}
        environment |= {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}  # nothing is there
        self.process = subprocess.Popen(
            [sys.executable, *command, "--host", "127.0.0.1", "--port", self.port],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def __enter__(self):
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("the demo is at "):
                self.address = line.split()[4].rstrip("/")
                return self
        raise AssertionError("".join(self.lines))

    def __exit__(self, *_):
        self.process.terminate()
        self.code = self.process.wait(timeout=120)
        self.left = os.listdir(self.place.name)
        self.place.cleanup()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium, such as the package chromium of Debian")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(folder):
    with Server("-m", "deepavfusion.inference.demo", *MODELS, folder=folder) as server:
        yield server
    assert server.code == 143  # of SIGTERM
    assert [name for name in server.left if name.startswith("deepavfusion_demo_")] == []


def open_page(browser, address, **options):
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.elsewhere, page.faults = [], []
    page.on("request", lambda request: _note(page.elsewhere, request.url, address))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(address, timeout=WAIT)
    page.wait_for_selector("#examples img")
    return page


def _note(found, url, address):
    if not url.startswith((address, "data:", "blob:")):
        found.append(url)


@pytest.fixture
def page(browser, server):
    page = open_page(browser, server.address)
    yield page
    assert page.elsewhere == []
    assert page.faults == []
    page.context.close()


def give(page, path):
    """Drop a video of one's own."""
    page.set_input_files("#video input[type=file]", str(path))


def click(page, x, y):
    """Click the frame at fractions of its size, as it is shown within its box."""
    page.wait_for_function("document.querySelector('#frame img')?.naturalWidth > 0")
    shown = page.evaluate(
        "() => { const i = document.querySelector('#frame img'), b = i.getBoundingClientRect(),"
        " s = Math.min(b.width / i.naturalWidth, b.height / i.naturalHeight), w = i.naturalWidth * s,"
        " h = i.naturalHeight * s; return [b.x + (b.width - w) / 2, b.y + (b.height - h) / 2, w, h]; }"
    )
    page.mouse.click(shown[0] + x * shown[2], shown[1] + y * shown[3])


def listen(page):
    """Wait for the sound of what was clicked; its length in seconds."""
    page.wait_for_selector("#alone a[download], #alone [aria-label=Download]", state="attached")
    page.wait_for_function(r"document.querySelector('#alone #duration')?.textContent.match(/0:(0[1-9]|[1-5]\d)/)")
    return page.locator("#alone #duration").inner_text()


def outline_box(page):
    """Where the frame and the frame with an outline differ: left, top, right, bottom, as fractions of its size."""
    frame, outlined = (
        np.asarray(Image.open(io.BytesIO(page.request.get(page.locator(f"{name} img").get_attribute("src")).body())))
        for name in ("#frame", "#thing")
    )
    differs = (frame != outlined).any(-1)
    edges = [np.flatnonzero(differs.any(axis))[[0, -1]] / differs.shape[1 - axis] for axis in (0, 1)]
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]


def run(page, tab, button, result):
    page.get_by_role("tab", name=tab, exact=True).click()
    page.locator(button).click()
    page.wait_for_selector(result)


def test_a_thing_is_clicked_and_heard(page):
    page.locator("#examples button").first.click()
    click(page, 0.4, 0.6)
    assert listen(page) == "0:03"
    text = page.locator("#verdict").inner_text()
    assert text.startswith(("This sounds", "This is silent"))
    assert page.locator("#frame img").evaluate("image => image.getBoundingClientRect().height") > 400
    left, top, right, bottom = outline_box(page)
    assert left < 0.4 < right
    assert top < 0.6 < bottom
    if "square around the click" in text:
        assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((0.4, 0.6), abs=0.02)
    page.locator("#examples button").nth(1).click()
    page.wait_for_function("!document.querySelector('#thing img')")  # results of another video are removed


def test_the_other_tabs(page):
    tabs = [tab.inner_text() for tab in page.get_by_role("tab").all()]
    assert tabs == ["Click", "What sounds", "Mask", "Labels", "Reconstruct", "Search"]
    page.locator("#examples button").first.click()
    page.wait_for_selector("#frame img")
    for tab, name in (("What sounds", "film"), ("Mask", "mask")):
        run(page, tab, f"#{name}_button", f"#{name} video")
        page.wait_for_function(f"document.querySelector('#{name} video').duration > 2.9")
        assert page.locator(f"#{name}_about").inner_text().startswith(("Probability", "Mean fraction"))
    run(page, "Labels", "#labels_button", "#labels table")
    assert "<i>cello</i>" in page.locator("#labels").inner_text()
    run(page, "Reconstruct", "#reconstruct_button", "#reconstruction img")
    assert page.locator("#reconstruction img").count() == 6
    before = page.locator("#reconstruction img").first.get_attribute("src")
    page.locator("input[type=range][aria-label*='Frame hidden']").focus()
    page.keyboard.press("Home")
    page.locator("#reconstruct_button").click()
    page.wait_for_function(f"document.querySelector('#reconstruction img').src.length != {len(before)}")
    assert ": 16 of 16 patches are visible" in page.locator("#reconstruction").inner_text()
    run(page, "Search", "#search_button", "#hits img")
    captions = page.locator("#hits .caption-label").all_inner_texts()
    assert sorted(caption.split(",")[0] for caption in captions) == [f"scene_{k}" for k in range(2, 7)]  # not itself
    page.locator("#hits button").first.click()
    page.wait_for_function("document.querySelector('#hit video')?.duration > 2.9")


@pytest.mark.parametrize("name", [f"{LONG[:90]}.mp4", "upright.mp4", "real"])
def test_a_video_of_ones_own(page, folder, name):
    """Also one whose name is long and holds markup, wide and upright ones, and a real clip."""
    if name == "real":
        path = next(iter(sorted(MEDIA.rglob("*.mp4"), key=lambda path: path.stat().st_size)), None)
        if path is None:
            pytest.skip("needs the clips of shared/media/vggsound")
    else:
        path = folder / name
    give(page, path)
    click(page, 0.9, 0.9)
    listen(page)
    assert page.locator("b").filter(has_text="name").count() == 0


def test_a_video_without_sound_is_clicked(page, folder):
    give(page, folder / "silent.mp4")
    click(page, 0.5, 0.5)
    page.wait_for_selector("#thing img")
    page.locator("#verdict", has_text="The video has no sound to separate.").wait_for()
    assert page.locator("#alone").is_hidden() or page.locator("#alone").count() == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("text.mp4", "text.mp4: expected images or audio, but it is damaged, cut off, or no media file."),
        ("minutes.mp4", "minutes.mp4: expected a video of at most 60 s, got 90 s; cut it first."),
    ],
)
def test_an_error_is_a_sentence(page, folder, name, text):
    give(page, folder / name)
    page.locator(".toast-body", has_text=text).wait_for()  # beside the browser's own, of a video that does not play
    shown = page.locator(".toast-body").inner_text()
    assert "Traceback" not in shown
    assert str(folder) not in shown
    assert "/tmp" not in shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_on_a_phone(browser, server, folder, scheme):
    page = open_page(
        browser, server.address, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True
    )
    page.locator("#examples button").first.click()
    page.wait_for_selector("#frame img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    levels = Image.open(io.BytesIO(page.screenshot())).convert("RGB").getpixel((3, 400))
    assert max(levels) < 60 if scheme == "dark" else min(levels) > 195
    assert page.elsewhere == []
    page.context.close()


def test_the_space_serves_the_same_page(browser, folder):
    export_space(folder / "space", [str(folder / "localize"), str(folder / "separate")])
    with Server("-c", APP, "app.py", folder=folder / "space") as server:
        page = open_page(browser, server.address)
        assert [tab.inner_text() for tab in page.get_by_role("tab").all()] == ["Click", "What sounds"]
        page.locator("#examples button").first.click()
        click(page, 0.5, 0.5)
        assert listen(page) == "0:03"
        page.context.close()
    assert server.code == 143
