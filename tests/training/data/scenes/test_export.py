"""Scenes as files, and the command that writes them."""

import json
import os
import re
import wave

import av
import numpy as np
import pytest

from deepavfusion.training.data.scenes import ScenesConfig, generate_scene, write_video
from deepavfusion.training.data.scenes.__main__ import main
from deepavfusion_cli.paths import FolderError


def test_scene_files(tmp_path, capsys):
    main(["--index", "3", "--out", str(tmp_path), "--image-size", "64", "--seconds", "1"])
    scene = generate_scene(ScenesConfig(image_size=64, seconds=1.0), 3)
    written = {line.rsplit("/", 1)[1] for line in capsys.readouterr().out.split()}
    assert written == set(os.listdir(tmp_path))
    about = json.loads((tmp_path / "scene.json").read_text())
    assert [o["sounding"] for o in about["objects"]] == scene.sounding.tolist()
    assert [o["box"] for o in about["objects"]] == scene.boxes[:, 0].tolist()
    assert sum(name.startswith("mask_") for name in written) == len(scene.masks)
    waveforms = {}
    for name in written:
        if name.endswith(".wav"):
            with wave.open(str(tmp_path / name)) as file:
                assert (file.getframerate(), file.getnchannels()) == (16000, 1)
                waveforms[name] = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    mixture = waveforms.pop("mixture.wav")
    assert np.abs(sum(waveforms.values()) - mixture).max() < 1e-4  # rounding to 16 bits
    assert np.abs(mixture - scene.waveform).max() < 1e-4
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25
    with av.open(str(tmp_path / "clip.mp4")) as container:  # after seeking, FFmpeg drops what decoders need to start
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(decoded) >= 16000
    assert np.corrcoef(decoded[: len(mixture)], mixture)[0, 1] > 0.9


@pytest.mark.parametrize(("option", "value"), [("max_objects", 1), ("max_sounding", 3), ("coupling", 0.9)])
def test_settings_of_the_scenes_are_options(option, value, tmp_path):
    words = ["--index", "1", "--out", str(tmp_path), "--image-size", "64", "--seconds", "1"]
    main([*words, f"--{option.replace('_', '-')}", str(value)])
    settings = {"image_size": 64, "seconds": 1.0}
    expected = generate_scene(ScenesConfig(**settings, **{option: value}), 1)
    with wave.open(str(tmp_path / "mixture.wav")) as file:
        mixture = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    assert np.abs(mixture - expected.waveform).max() < 1e-4
    assert np.abs(mixture - generate_scene(ScenesConfig(**settings), 1).waveform).max() > 1e-2


def test_every_option_is_explained_and_impossible_values_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    described = re.findall(r"^  --[a-z-]+ \S*.*(?:\n {3,}\S.*)?$", capsys.readouterr().out, re.MULTILINE)
    assert len(described) == 15
    assert all(re.search(r"\s{2,}\S+ \S+", option) for option in described)
    with pytest.raises(SystemExit) as caught:
        main(["--coupling", "1", "--sheet", "absent.png"])
    assert caught.value.code == 2
    assert "coupling is 1.0: expected a number of at least 0 and below 1." in capsys.readouterr().err


def test_odd_sizes(tmp_path):
    write_video(tmp_path / "odd.mp4", np.zeros((3, 33, 47, 3), np.uint8), np.zeros(1000, np.float32), 16000)
    with av.open(str(tmp_path / "odd.mp4")) as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == (34, 48)


def test_sheet(tmp_path):
    from PIL import Image

    main(["--index", "0", "1", "--sheet", str(tmp_path / "sheet.png"), "--image-size", "64"])
    with Image.open(tmp_path / "sheet.png") as image:
        colors = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert image.width > 600
    assert len(np.unique(colors, axis=0)) > 100


def test_scenes_and_sheets_are_replaced_only_on_request(tmp_path, capsys):
    small = ["--image-size", "64", "--seconds", "1"]
    places = [["--out", str(tmp_path / "scene"), "--index", "3"], ["--sheet", str(tmp_path / "sheet.png")]]
    for place, file in zip(places, ("scene/clip.mp4", "sheet.png"), strict=True):
        main([*place, *small])
        (tmp_path / file).write_text("user content")
        with pytest.raises(SystemExit) as caught:
            main([*place, *small])
        assert caught.value.code == 2
        assert "pass --overwrite to replace it" in capsys.readouterr().err
        assert (tmp_path / file).read_text() == "user content"
        main([*place, *small, "--overwrite"])
        assert (tmp_path / file).stat().st_size > 1000


def test_folders_of_others_are_never_written_to(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("user content")
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--index", "3", "--overwrite"])
    assert "exists and is not a scene" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_missing_output_is_an_error():
    with pytest.raises(SystemExit):
        main([])


@pytest.mark.parametrize("option", ["--out", "--sheet"])
def test_an_output_that_cannot_be_written_is_named(option, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "a" / "b", "/proc/a/b"):
        with pytest.raises(FolderError, match=f"^{option}=.* cannot be written to: .* (is a file|takes no files); "):
            main([option, str(place), "--image-size", "64"])
    with pytest.raises(FolderError, match="is a folder: name a file in it"):
        main(["--sheet", str(tmp_path)])
