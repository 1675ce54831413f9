"""The page of a report, parsed: it is self-contained, escaped and complete."""

import base64
import hashlib
import io
import json
import os
import re
import wave
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from deepavfusion.processors import load_clip
from deepavfusion.processors.feature_extraction_deepavfusion import DeepAVFusionFeatureExtractor
from deepavfusion.training.report.charts import log_mels
from deepavfusion.training.report.report import Example, ExampleImage, Report, Table
from deepavfusion.training.report.style import figure_png

VOID = {"meta", "link", "img", "br"}
RATE = 8000
EVIL = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Elements with their attributes, text by element; raises where elements are not closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.texts, self.stack = [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.stack[-1] if self.stack else None, data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *tags):
        return [data for tag, data in self.texts if tag in tags]


def payload(uri: str, kind: str) -> bytes:
    head, _, body = uri.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(body, validate=True)


def samples(content: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(content)) as file:
        assert file.getframerate() == RATE
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def alike(content: bytes, sound: np.ndarray) -> float:
    """Correlation of compressed audio with a sound, of frequencies up to a quarter of the sampling rate."""
    clip = load_clip(content, seconds=60, require="audio")
    assert clip.sampling_rate == RATE
    length = min(clip.waveform.shape[1], len(sound))
    assert length >= len(sound) - 1
    found, own = (np.fft.rfft(values[:length])[: length // 4] for values in (clip.waveform[0], sound))
    return np.vdot(found, own).real / np.linalg.norm(found) / np.linalg.norm(own)


def chart() -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1])
    return figure


@pytest.fixture(scope="module")
def material():
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (4, 16, 24, 3), dtype=np.uint8)
    sounds = generator.uniform(-0.9, 0.9, (4, 4000)).astype(np.float32)
    return frames, sounds


@pytest.fixture(scope="module")
def written(material, tmp_path_factory):
    frames, sounds = material
    folder = tmp_path_factory.mktemp("evaluation") / "new" / "folder"
    report = Report(
        folder,
        f"Title {EVIL}",
        [f"Line {EVIL}"],
        [Table("Scores", ["stream", "top-1"], [["fusion", "66.2 %"], [EVIL, 0.5], ["none", float("nan")]], "A note.")],
        {
            "protocol": {"clips": "center", EVIL: [1, 2]},
            "skipped": {"broken": 2},
            "versions": {"torch": torch.__version__},
            "metrics": {"score": np.float32(0.25), "nan": float("nan")},
        },
    )
    report.add_figure("Chart", chart(), f"Caption {EVIL}", alt=f"Alt {EVIL}")
    report.add_figure("Frame", frames[0], alt="A frame")
    report.add_gallery(
        "Examples",
        [
            Example(
                f"Example {EVIL}",
                [
                    ExampleImage(frames[1], "found", correct=True),
                    ExampleImage(frames[2], "lost", "Lost", correct=False),
                ],
                [("first", sounds[0], RATE), (EVIL, torch.from_numpy(sounds[1]), RATE)],
                EVIL,
            ),
            Example("Second", [ExampleImage(chart(), EVIL)], [("query", sounds[2], RATE)]),
        ],
        f"Gallery {EVIL}",
    )
    path = report.write()
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    return folder, text, Page(text)


def test_refers_to_nothing_outside(written):
    _, text, page = written
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text.split("<body>")[0] + "".join(page.text("script")))
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in {"src", "srcset", "poster", "data", "action", "background", "xlink:href", "formaction"}:
                assert value.startswith("data:"), (tag, name)
            if name == "href":
                assert value.startswith("#") or value == "data:,"
        assert tag not in {"iframe", "object", "embed", "form", "base"}
        assert not any(name.startswith("on") for name in attributes)
    assert all(attributes.get("rel") == "icon" for attributes in page.all("link"))


def test_policy_allows_the_one_script_and_no_network(written):
    _, _, page = written
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    (script,) = page.text("script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert page.all("script") == [{}]


def test_text_is_escaped(written):
    _, text, page = written
    assert "<script>alert" not in text
    assert f"Title {EVIL}" in page.text("h1")
    assert f"Line {EVIL}" in page.text("p")
    assert EVIL in page.text("th")
    assert f"Caption {EVIL}" in page.text("figcaption")
    assert f"Alt {EVIL}" in [image["alt"] for image in page.all("img")]
    assert EVIL in [sound["aria-label"] for sound in page.all("audio")]
    assert EVIL in page.text("span")
    assert EVIL in page.text("figcaption")
    assert f"Example {EVIL}" in page.text("h3")
    assert {EVIL, f"Gallery {EVIL}"} <= set(page.text("p"))


def test_images_decode_to_what_was_given(written, material):
    folder, _, page = written
    frames, _ = material
    chart, *exact, last = page.all("img")
    contents = [payload(image["src"], "image/png") for image in exact]
    images = [np.asarray(Image.open(io.BytesIO(content))) for content in contents]
    for image, frame in zip(images, frames[:3], strict=True):
        np.testing.assert_array_equal(image, frame)
    assert all(image["alt"].strip() for image in page.all("img"))
    files = sorted((folder / "images").iterdir())
    assert [file.read_bytes() for file in files[1:-1]] == contents
    for compressed, file in ((chart, files[0]), (last, files[-1])):
        found = np.asarray(Image.open(io.BytesIO(payload(compressed["src"], "image/webp"))), float)
        assert np.abs(found - np.asarray(Image.open(file).convert("RGB"), float)).mean() < 2
    assert all(re.fullmatch(r"\d{3}-[a-z0-9-]+\.png", file.name) for file in files)


def test_small_frames_are_enlarged_by_whole_factors(written):
    _, _, page = written
    assert [page.all("img")[1][side] for side in ("width", "height")] == ["240", "160"]


def test_audio_decodes_to_what_was_given(written, material):
    folder, _, page = written
    _, sounds = material
    players = page.all("audio")
    assert len(players) == 3
    assert all("controls" in player and player["aria-label"] for player in players)
    files = sorted((folder / "audio").iterdir())
    for player, file, sound in zip(players, files, sounds[:3], strict=True):
        assert alike(payload(player["src"], "audio/mp4"), sound) > 0.9
        assert np.abs(samples(file.read_bytes()) - sound).max() <= 0.5 / 32768


@pytest.mark.parametrize("task", ["separation", "localization", "retrieval", "pretraining"])
def test_a_page_of_twelve_examples_is_small(tmp_path, task):
    """With as many charts, whole frames, views of the model and players as the examples of each task have."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:360, :640]
    frame = np.stack([rows / 2, columns / 3, (rows + columns) / 5], axis=-1) + generator.normal(0, 4, (360, 640, 3))
    frame = np.clip(frame, 0, 255).astype(np.uint8)
    view = ExampleImage(frame[:224, :224], "frame")
    noise = generator.normal(0, 0.1, (3, 48000)).astype(np.float32)
    names = ("mixture", "estimate", "reference")
    if task == "separation":
        features = {name: DeepAVFusionFeatureExtractor().log_mel(torch.from_numpy(w)) for name, w in zip(names, noise)}
        (tmp_path / "chart.png").write_bytes(figure_png(log_mels(features)))
        images, players = [view, ExampleImage(tmp_path / "chart.png", "spectrograms")], 3
    else:
        views, players = {"localization": (2, 1), "retrieval": (4, 2), "pretraining": (3, 1)}[task]
        images = [ExampleImage(frame, "whole frame"), *[view] * views]
        if task == "pretraining":
            images.append(ExampleImage(log_mels({name: generator.normal(0, 1, (128, 192)) for name in "abc"}), "mel"))
    audio = [(name, waveform, 16000) for name, waveform in zip(names[:players], noise)]
    report = Report(tmp_path, "t")
    report.add_gallery("Examples", [Example(f"clip {number}", images, audio) for number in range(12)])
    Image.fromarray(np.tile(frame, (4, 3, 1))).save(tmp_path / "figure.png")
    report.add_figure("Training", tmp_path / "figure.png", alt="a large figure")
    assert 200_000 < report.write().stat().st_size < 3_000_000
    assert len(list((tmp_path / "audio").glob("*.wav"))) == 12 * players


def test_correct_and_wrong_are_marked_in_words(written):
    _, _, page = written
    captions = page.text("figcaption")
    assert "✓ correct · found" in captions
    assert "✗ wrong · lost" in captions


def test_sections_are_linked_and_headings_name_them(written):
    _, _, page = written
    ids = [attributes["id"] for attributes in page.all("h2")]
    assert len(set(ids)) == len(ids)
    assert [link["href"][1:] for link in page.all("a") if link["href"] != "#content"] == ids
    assert [section["aria-labelledby"] for section in page.all("section")] == ids
    expected = ["Scores", "Protocol", "Skipped samples", "Chart", "Frame", "Examples", "All numbers"]
    assert page.text("h2") == expected
    assert page.all("html") == [{"lang": "en"}]


def test_protocol_and_skipped_samples_stand_beside_the_scores(written):
    _, _, page = written
    cells = page.text("td", "th")
    for words in ("66.2 %", "0.5", "–", "center", "1, 2", "broken", "2"):
        assert words in cells


def test_evaluation_is_strict_json(written):
    folder, _, page = written
    text = (folder / "evaluation.json").read_text(encoding="utf-8")
    evaluation = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert evaluation["metrics"] == {"score": 0.25, "nan": None}
    assert page.text("pre") == [text]


def test_same_title_joins_the_section_before(tmp_path):
    report = Report(tmp_path, "t")
    report.add_table("Same", ["a"], [[1]])
    report.add_text("Same", ["words"])
    report.add_text("Other", ["words"])
    page = Page(report.write().read_text(encoding="utf-8"))
    assert page.text("h2") == ["Same", "Other"]
    assert not (tmp_path / "evaluation.json").exists()


def test_loud_audio_is_attenuated_together(tmp_path, material):
    loud, soft = 2 * material[1][0], material[1][1]
    report = Report(tmp_path, "t")
    report.add_gallery("Loud", [Example("Pair", [], [("loud", loud, RATE), ("soft", soft, RATE)])])
    page = Page(report.write().read_text(encoding="utf-8"))
    peak = np.abs(loud).max()
    files = sorted((tmp_path / "audio").iterdir())
    for player, file, sound in zip(page.all("audio"), files, (loud, soft), strict=True):
        assert np.abs(samples(file.read_bytes()) - sound / peak).max() <= 1 / 32768
        assert alike(payload(player["src"], "audio/mp4"), sound / peak) > 0.9
    assert f"Attenuated by {20 * np.log10(peak):.1f} dB to avoid clipping." in page.text("p")


def test_a_second_report_replaces_the_first_and_leaves_other_files(tmp_path, material):
    frames, sounds = material
    report = Report(tmp_path, "first", evaluation={"n": 1})
    report.add_figure("One", frames[0], alt="one")
    report.add_figure("Two", frames[1], alt="two")
    report.add_gallery("Sound", [Example("e", [], [("s", sounds[0], RATE)])])
    report.write()
    (tmp_path / "images" / "mine.png").write_bytes(b"x")
    report = Report(tmp_path, "second", evaluation={"n": 2})
    report.add_figure("One", frames[2], alt="one")
    report.write()
    assert sorted(os.listdir(tmp_path / "images")) == ["001-one.png", "mine.png"]
    assert os.listdir(tmp_path / "audio") == []
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"n": 2}


def test_a_write_that_fails_leaves_the_old_page(tmp_path, monkeypatch):
    old = Report(tmp_path, "first", evaluation={"n": 1}).write().read_bytes()

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        Report(tmp_path, "second", evaluation={"n": 2}).write()
    assert (tmp_path / "report.html").read_bytes() == old
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"n": 1}


def test_arguments_are_checked(tmp_path, material):
    report = Report(tmp_path, "t")
    with pytest.raises(ValueError, match="alternative text"):
        report.add_figure("Chart", chart(), alt=" ")
    with pytest.raises(ValueError, match="Expected 2 cells"):
        report.add_table("Table", ["a", "b"], [[1]])
    with pytest.raises(TypeError, match="list of lines"):
        Report(tmp_path, "t", "one text")
    with pytest.raises(TypeError, match="JSON"):
        Report(tmp_path, "t", evaluation={"a": object()})


def test_numeric_columns_are_right_aligned_and_long_tables_scroll(tmp_path):
    report = Report(tmp_path, "t")
    report.add_table("label", ["name", "score", "mixed", ""], [["a", "-1.5 dB", "1", None], ["b", None, "two", None]])
    report.add_table("long", ["n"], [[str(i)] for i in range(26)])
    page = Page(report.write().read_text(encoding="utf-8"))
    kinds = [head.get("class") for head in page.all("th") if head.get("scope") == "col"]
    assert kinds == [None, "number", None, "number"]
    assert [cell.get("class") for cell in page.all("td")][:4] == [None, "number", None, None]
    regions = [div["class"] for div in page.all("div") if div.get("role") == "region"]
    assert regions == ["scroll", "scroll tall"]
