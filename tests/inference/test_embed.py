"""The command embed: streams, shapes, windows, missing modalities, errors."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining
from deepavfusion.inference import embed
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data.scenes import write_video, write_wav
from tests.fake_device import fake_device
from tests.tiny import RUN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved pre-training model with its processor, a clip of 2 s and an audio file."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = DeepAVFusionForPreTraining(DeepAVFusionConfig(**RUN))
    model.save_pretrained(folder)
    DeepAVFusionProcessor.from_config(model.config).save_pretrained(folder)
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (50, 64, 64, 3), dtype=np.uint8)
    waveform = generator.normal(0, 0.1, 32000).astype(np.float32)
    write_video(folder / "clip.mp4", frames, waveform, 16000)
    write_wav(folder / "sound.wav", waveform, 16000)
    return folder


def read(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def test_the_command_prints_shapes_and_writes_the_streams(folder, tmp_path, capsys):
    output = tmp_path / "deep" / "clip.safetensors"
    assert (
        cli.main(
            [
                "embed",
                str(folder / "clip.mp4"),
                "--model",
                str(folder),
                "--output",
                str(output),
                "--precision",
                "float32",
            ]
        )
        == 0
    )
    streams, metadata = read(output)
    printed = capsys.readouterr().out
    assert {name: tuple(stream.shape) for name, stream in streams.items()} == {
        "fusion": (1, 6, 32),
        "image": (1, 9, 32),
        "audio": (1, 12, 32),
        "timestamps": (1,),
    }
    assert "(1, 9, 32)" in printed
    assert str(output) in printed
    assert metadata["clip"] == "clip.mp4"
    assert json.loads(metadata["shapes"])["audio"] == [1, 12, 32]
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        expected = model(**processor(videos=str(folder / "clip.mp4"), return_tensors="pt"))
    torch.testing.assert_close(streams["fusion"], expected.last_hidden_state)


@pytest.mark.parametrize("device", [[], ["--device", "mps"]], ids=["default", "named"])
def test_an_accelerator_gives_the_streams_of_the_cpu(device, folder, tmp_path, monkeypatch):
    """It is used unless another device is named."""
    used, load = [], embed.load
    monkeypatch.setattr(embed, "load", lambda *args: used.append(load(*args)) or used[-1])
    command = ["embed", str(folder / "clip.mp4"), "--model", str(folder), "--precision", "float32"]
    assert cli.main([*command, "--output", str(tmp_path / "cpu"), "--device", "cpu"]) == 0
    with fake_device("mps"):
        assert cli.main([*command, "--output", str(tmp_path / "mps"), *device]) == 0
        assert [pipe.model.device.type for pipe in used] == ["cpu", "mps"]
    torch.testing.assert_close(read(tmp_path / "mps")[0], read(tmp_path / "cpu")[0])


def test_several_windows_are_rows_with_their_timestamps(folder, tmp_path):
    given = [str(folder / "clip.mp4"), "--model", str(folder), "--out", str(tmp_path)]
    assert embed.main([*given, "--num-clips", "3"]) == 0
    streams, _ = read(tmp_path / "clip.safetensors")
    assert streams["audio"].shape == (3, 12, 32)
    assert streams["timestamps"].dtype == torch.float64
    assert streams["timestamps"].tolist() == pytest.approx([0.5, 1.0, 1.5], abs=0.05)  # seconds
    assert embed.main([*given, "--at", "0.7", "--overwrite"]) == 0
    assert read(tmp_path / "clip.safetensors")[0]["timestamps"].tolist() == [0.7]
    assert not torch.equal(streams["audio"][0], streams["audio"][2])


def test_several_files_each_have_one_of_their_own(folder, tmp_path, capsys):
    files = [str(folder / name) for name in ("clip.mp4", "absent.mp4", "sound.wav")]
    assert embed.main([*files, "--model", str(folder), "--out", str(tmp_path / "out"), "--at", "0.5", "1.5"]) == 2
    assert "absent.mp4" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.safetensors", "sound.safetensors"]
    assert read(tmp_path / "out" / "clip.safetensors")[0]["image"].shape[0] == 2
    assert embed.main([*files, "--model", str(folder), "--output", str(tmp_path / "one.safetensors")]) == 2
    assert "--output takes one input file, got 3" in capsys.readouterr().err
    assert embed.main([str(folder), "--model", str(folder), "--output", str(tmp_path / "one.safetensors")]) == 2
    assert "--output takes one input file, got a folder" in capsys.readouterr().err


def test_nothing_is_written_without_an_output(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        embed.main([str(folder / "clip.mp4"), "--model", str(folder)])
    assert stopped.value.code == 2
    assert "--out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_audio_file_has_no_image_stream(folder, tmp_path, capsys):
    output = tmp_path / "sound.safetensors"
    assert embed.main([str(folder / "sound.wav"), "--model", str(folder), "--output", str(output)]) == 0
    assert set(read(output)[0]) == {"fusion", "audio", "timestamps"}
    assert "image   not in the file" in capsys.readouterr().out


def test_a_file_that_exists_is_replaced_only_on_request(folder, tmp_path, capsys):
    output = tmp_path / "model.safetensors"
    output.write_text("a model")
    given = [str(folder / "sound.wav"), "--model", str(folder), "--output", str(output)]
    assert embed.main(given) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_text() == "a model"
    assert embed.main([*given, "--overwrite"]) == 0
    assert set(read(output)[0]) == {"fusion", "audio", "timestamps"}


def test_unreadable_inputs_are_reported_and_nothing_is_written(folder, tmp_path, capsys):
    output = tmp_path / "out.safetensors"
    (tmp_path / "text.mp4").write_text("no video")
    for clip in ("text.mp4", "absent.mp4"):
        assert embed.main([str(tmp_path / clip), "--model", str(folder), "--output", str(output)]) == 2
        assert clip in capsys.readouterr().err
    assert embed.main([str(folder / "clip.mp4"), "--model", str(tmp_path), "--output", str(output)]) == 2
    assert "deepavfusion embed:" in capsys.readouterr().err
    assert not output.exists()


def test_an_incomplete_model_is_refused(folder, tmp_path, capsys):
    tensors, _ = read(folder / "model.safetensors")
    del tensors["deepavfusion.fusion_norm.weight"]
    for name in ("config.json", "processor_config.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert embed.main([str(folder / "clip.mp4"), "--model", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "lacks 1 of its weights: fusion_norm.weight" in capsys.readouterr().err
