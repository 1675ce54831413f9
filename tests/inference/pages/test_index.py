"""The page of a folder of results: what it links to exists, and names stay text."""

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

import deepavfusion_cli as cli
from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
)
from deepavfusion.inference.jobs.records import OUTSIDE
from deepavfusion.inference.pages import index
from deepavfusion.inference.pages.index import write_index
from deepavfusion_cli.early.outputs import IndexExistsError, check_index
from tests.media_factory import write_kinds
from tests.modeling_deepavfusion.cases import save_model
from tests.training.report.test_report import Page

ODD = "50% <b>\"'&#x?; é " + "long" * 20
MODELS = {
    "localize": (DeepAVFusionForSoundLocalization, {}),
    "segment": (DeepAVFusionForSemanticSegmentation, {"num_labels": 3, "hidden_size": 128}),
    "separate": (DeepAVFusionForSourceSeparation, {}),
    "classify": (DeepAVFusionForAudioVisualClassification, {"num_labels": 3, "hidden_size": 128}),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of videos and an audio file, below a folder with models."""
    place = tmp_path_factory.mktemp("pages")
    for seed, (name, (model_class, overrides)) in enumerate(MODELS.items()):
        names = {"id2label": {0: "<i>", 1: "cello", 2: "c"}} if name == "classify" else {}
        save_model(place / name, model_class, seed=seed, **overrides, **names)
    (place / "media").mkdir()
    write_kinds(place / "media", seconds=1.5, sound_seconds=1.51, silent_seconds=0.5, rate=16000, picture="cello.png")
    (place / "videos" / "sub # folder").mkdir(parents=True)
    (place / "videos" / f"{ODD}.mov").symlink_to(place / "media" / "clip.mov")
    (place / "videos" / "sub # folder" / "b.mp4").symlink_to(place / "media" / "silent.mp4")
    return place


@pytest.fixture
def run(place, tmp_path, capsys):
    def run(name, *words):
        options = ["--model", str(place / name), "--device", "cpu", "--out", str(tmp_path / "out")]
        code = cli.main([name, *map(str, words), *options])
        return code, capsys.readouterr()

    return run


def links(page):
    """What a page refers to, except for parts of itself."""
    named = [(tag, attributes.get(name)) for tag, attributes in page.elements for name in ("src", "href", "poster")]
    return {value for tag, value in named if value and tag != "link" and not value.startswith("#")}


def read(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_a_folder_of_videos(place, run, tmp_path):
    code, said = run("segment", place / "videos")
    assert (code, said.err) == (0, f"deepavfusion segment: {OUTSIDE}\n")
    assert said.out.endswith(f"written to {tmp_path / 'out' / 'index.html'}\n")
    text, page = read(tmp_path / "out")
    assert "<b>" not in text
    assert f"{ODD}" in page.text("h3")
    assert "sub # folder/b" in page.text("h3")
    films = [film["src"] for film in page.all("video")]
    assert len(films) == 2
    for link in links(page):
        assert not link.startswith(("/", "http", "file")), link
        assert (tmp_path / "out" / unquote(link)).is_file(), link
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert "media-src 'self' file:" in policy
    shown = [label.strip() for label in page.text("th", "td") if label.strip().startswith("LABEL_")]
    swatches = [span["style"] for span in page.all("span") if span.get("class") == "swatch"]
    assert len(swatches) == len(shown) > 0
    assert len(set(zip(shown, swatches, strict=True))) == len(set(shown)) == len(set(swatches))  # one for each label
    # Again, nothing is computed, and the page is the same but for its date.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*") if path.name != "index.html"}
    code, said = run("segment", place / "videos")
    assert (code, said.err.count("its results are there already")) == (0, 2)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    # Results that lack a file are left out.
    (film,) = (tmp_path / "out" / "sub # folder").glob("*.mp4")
    film.unlink()
    write_index(tmp_path / "out")
    assert read(tmp_path / "out")[1].text("h3") == [ODD]


def test_films_and_players_of_sources_and_a_table_of_labels(place, run, tmp_path):
    media = place / "media"
    assert run("separate", media / "sound.wav", media / "clip.mov", "--frame", media / "cello.png")[0] == 0
    assert run("classify", place / "media" / "sound.wav", place / "media" / "clip.mov")[0] == 0
    _, page = read(tmp_path / "out")
    assert page.text("h2") == ["Source separation", "Classification"]
    clip, sound = (os.path.relpath(media / name, tmp_path / "out") for name in ("clip.mov", "sound.wav"))
    assert [film["src"] for film in page.all("video")] == ["clip_cello.mp4#t=0.01", f"{clip}#t=0.01"]
    players = [(player["aria-label"], player["src"]) for player in page.all("audio")]
    mixtures = [
        ("mixture", clip),
        ("cello.png", "clip_cello.wav"),
        ("mixture", sound),
        ("cello.png", "sound_cello.wav"),
    ]
    assert players[:-1] == mixtures
    assert players[-1][1] == sound
    assert re.fullmatch(r"(<i>|cello|c) 0\.\d{3}", players[-1][0])
    assert [link for link in page.text("a") if "." in link] == ["clip.mov", "sound.wav"]
    assert page.text("h3") == ["clip", "sound", "clip.mov", "sound.wav"]
    for link in links(page):
        assert (tmp_path / "out" / unquote(link).partition("#")[0]).is_file(), link
    stored = json.loads((tmp_path / "out" / "sound_labels.json").read_text())
    assert {entry["label"] for entry in stored["labels"]} == {"<i>", "cello", "c"}
    assert len(stored["timestamps"]) == 1


def test_the_legend_of_films_of_heat_maps(place, run, tmp_path):
    legend = "In images, each map has its own range of colors; in films, they fade with the score."
    assert run("localize", place / "videos")[0] == 0
    assert legend in (tmp_path / "out" / "index.html").read_text()
    assert run("localize", place / "videos", "--no-film", "--force")[0] == 0
    assert legend not in (tmp_path / "out" / "index.html").read_text()


def test_media_files_that_are_gone_or_many_have_no_players(place, run, tmp_path, monkeypatch):
    copies = [tmp_path / name for name in ("a%#.mov", "b.mov", "photo.png")]
    for path in copies:
        path.write_bytes((place / "media" / ("cello.png" if path.suffix == ".png" else "clip.mov")).read_bytes())
    assert run("classify", *copies)[0] == 0
    _, page = read(tmp_path / "out")
    assert {"../a%25%23.mov", "../b.mov", "../photo.png"} < links(page)
    assert [image["src"] for image in page.all("img")] == ["../photo.png"]
    copies[0].unlink()
    write_index(tmp_path / "out")
    _, page = read(tmp_path / "out")
    assert len(page.all("video")) == 1
    assert "a%#.mov" in page.text("th")
    monkeypatch.setattr(index, "_MOST_PLAYERS", 2)
    write_index(tmp_path / "out")
    _, page = read(tmp_path / "out")
    assert page.all("video") == page.all("img") == []
    assert [text for text in page.text("a") if "." in text] == ["b.mov", "photo.png"]


def test_labels_are_printed_again_from_their_record(place, run, tmp_path):
    file = place / "media" / "clip.mov"
    _, first = run("classify", file, "--json")
    assert run("classify", file, "--json")[1].out == first.out
    assert "index.html" not in first.out
    assert not (tmp_path / "out" / "index.html").exists()  # a single file needs no page
    assert run("classify", file, "--top-k", "1")[0] == 2  # another result of the same name
    assert run("classify", file, "--top-k", "1", "--force")[0] == 0


def test_a_page_of_others_is_not_replaced(place, run, tmp_path):
    (tmp_path / "out").mkdir()
    own = tmp_path / "out" / "index.html"
    own.write_text("mine")
    code, said = run("segment", place / "videos", "--no-film")
    assert code == 2
    assert f"{own} is no page of this package" in said.err
    assert [path.name for path in own.parent.iterdir()] == ["index.html"]
    with pytest.raises(IndexExistsError):
        check_index(own.parent, overwrite=False)
    check_index(own.parent, overwrite=True)


def test_files_that_are_no_records_are_left_out(tmp_path):
    for name, content in (("a_heat.json", "{}"), ("b_mask.json", "["), ("c_labels.json", '{"format": 1}')):
        Path(tmp_path, name).write_text(content)
    assert write_index(tmp_path) is None
    assert not (tmp_path / "index.html").exists()
