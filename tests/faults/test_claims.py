"""What a file claims is bounded: refused before anything is allocated, with the setting that allows more."""

import io
import json
import os
import struct
import subprocess
import zipfile
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionFeatureExtractor,
    DeepAVFusionForPreTraining,
    DeepAVFusionImageProcessor,
    DeepAVFusionVideoProcessor,
    MediaError,
    export_original_state_dict,
    load_clip,
    load_original_checkpoint,
)
from deepavfusion.processors import probe_clip
from deepavfusion.processors.pixels_deepavfusion import to_pixels
from deepavfusion.processors.recordings_deepavfusion import Recording
from deepavfusion.sizes_deepavfusion import count_parameters
from deepavfusion.training.config.recipe import RecipeError, load_recipe
from deepavfusion.training.data.views import read_class_map, read_image, read_mask
from deepavfusion_cli.values import load_values
from tests.media_factory import tone, write_media
from tests.tiny import INFERABLE, INFERABLE_DECODER, tiny_config
from tests.warm import warm_python

PIXELS = "DEEPAVFUSION_MAX_PIXELS"


def gif(width: int, height: int, frames: int = 2) -> bytes:
    """A GIF of frames of 8 x 8 that claims another size."""
    images = [Image.fromarray(np.full((8, 8), 40 * i, np.uint8)) for i in range(frames)]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:])
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def png(width: int, height: int) -> bytes:
    """The header of a PNG of gray pixels, and far too few of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + header + bytes(100)


IMAGES = {
    "gif": gif(9000, 9000),
    "still gif": gif(9000, 9000, frames=1),
    "wide gif": gif(65535, 65535),
    "png": png(9000, 9000),
    "huge png": png(2**31 - 1, 2**31 - 1),
    "bmp": bmp(20000, 20000),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_are_refused_by_their_headers(tmp_path, kind):
    path = tmp_path / "bomb.image"
    path.write_bytes(IMAGES[kind])
    readers = [load_clip, probe_clip, read_image, read_mask, lambda path: read_class_map(path, 2)]
    for reader in readers:
        with pytest.raises(MediaError, match=r"bomb\.image: expected .*claims .*pixels"):
            reader(path)
    with pytest.raises(MediaError, match="file object: expected an image, but it claims"):
        load_clip(IMAGES[kind])


def test_opened_images_are_refused_before_they_are_decoded(tmp_path):
    with Image.open(io.BytesIO(IMAGES["png"])) as image:
        with pytest.raises(MediaError, match=f"it claims 9000 x 9000 pixels.*{PIXELS}"):
            to_pixels(image)
        with pytest.raises(MediaError, match="9000 x 9000"):
            DeepAVFusionImageProcessor()(image)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "gif", "mjpeg"])
def test_frames_of_videos_are_limited(tmp_path, monkeypatch, codec):
    options = {"gif": {"pixel_format": "rgb8"}, "mjpeg": {"pixel_format": "yuvj420p"}}.get(codec, {})
    suffix = ".gif" if codec == "gif" else ".mkv"
    path = write_media(tmp_path / f"clip{suffix}", codec=codec, audio_codec=None, seconds=0.5, **options)
    assert load_clip(path).frames.shape == (1, 48, 64, 3)
    monkeypatch.setenv(PIXELS, str(64 * 48 - 1))
    with pytest.raises(MediaError, match=rf"clip\{suffix}: expected "):
        load_clip(path)
    monkeypatch.setenv(PIXELS, str(64 * 48))
    assert load_clip(path).frames.shape == (1, 48, 64, 3)


def test_the_limit_is_a_setting(monkeypatch):
    image = Image.new("RGB", (20, 10))
    monkeypatch.setenv(PIXELS, "199")
    with pytest.raises(MediaError, match="claims 20 x 10 pixels, more than the limit of 199"):
        to_pixels(image)
    for wrong in ("none", "0", "-5", "1e9"):
        monkeypatch.setenv(PIXELS, wrong)
        with pytest.raises(ValueError, match=f"Expected {PIXELS} as a positive number"):
            to_pixels(image)
    monkeypatch.setenv(PIXELS, str(10**12))
    assert to_pixels(image).shape == (3, 10, 20)


def test_pixels_that_are_not_square_count_as_shown(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mkv", audio_codec=None, seconds=0.3, sample_aspect_ratio=Fraction(8, 1))
    assert load_clip(path).frames.shape[2] == 512
    monkeypatch.setenv(PIXELS, "20000")
    with pytest.raises(MediaError, match="claims 512 x 48 pixels"):
        load_clip(path)


@pytest.mark.parametrize("limit", ["2000", "20000"])  # the stored frame is too large, the one with square pixels
def test_frames_of_recordings_have_the_same_limit(tmp_path, limit, monkeypatch):
    recording = Recording(write_media(tmp_path / "a.mkv", seconds=0.3, sample_aspect_ratio=Fraction(8, 1)))
    assert recording.frames().at(0.1).shape == (48, 512, 3)
    monkeypatch.setenv(PIXELS, limit)
    with pytest.raises(MediaError, match=rf"a\.mkv: expected image.*more than the limit of {limit}"):
        recording.frames().at(0.1)


@pytest.mark.parametrize("rate", [1, 50, 2_000_000, 2_000_000_000])
def test_sampling_rates_that_do_not_exist_are_refused(tmp_path, rate):
    path = write_media(tmp_path / "sound.wav", codec=None, audio_codec="pcm_s16le", audio=tone(16000, 0.5))
    data = bytearray(path.read_bytes())
    data[24:32] = struct.pack("<II", rate, min(2 * rate, 2**32 - 1))
    for read in (load_clip, lambda file: list(Recording(file).audio())):
        with pytest.raises(MediaError):
            read(bytes(data))
    with pytest.raises(ValueError, match="100 to 1000000"):
        DeepAVFusionFeatureExtractor()(tone(16000, 0.5)[0], sampling_rate=rate)


def test_windows_longer_than_a_file_allocate_what_it_has(tmp_path):
    path = write_media(tmp_path / "sound.wav", codec=None, audio_codec="pcm_s16le", audio=tone(16000, 0.5))
    assert load_clip(path, seconds=1e9).waveform.shape == (1, 8000)


def test_gaps_of_days_are_not_filled(tmp_path):
    path = write_media(tmp_path / "late.mkv", seconds=0.5, audio_codec="pcm_s16le", audio_start=2e5)
    with pytest.raises(MediaError, match=r"late\.mkv: .*gap of 200000 s"):
        load_clip(path, 1e5, seconds=3e5)


def test_gaps_of_days_are_not_filled_in_recordings(tmp_path, monkeypatch):
    monkeypatch.setattr("deepavfusion.processors.audio_streams_deepavfusion._MAX_GAP", 16000)
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000)
        for start in (0.0, 3.0):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 800), np.int16), layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), round(start * 16000)
            container.mux(stream.encode(frame))
    with pytest.raises(MediaError, match=r"gap\.mkv: .*gap of 2\.95 s"):
        list(Recording(path).audio())


def test_audio_longer_than_the_first_buffer_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("deepavfusion.processors.audio_streams_deepavfusion._FIRST_SAMPLES", 1000)
    audio = tone(16000, 2.0)
    path = write_media(tmp_path / "sound.wav", codec=None, audio_codec="pcm_f32le", audio=audio)
    np.testing.assert_array_equal(load_clip(path, seconds=10).waveform, audio)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_size": 10**9},
        {"num_hidden_layers": 10**9},
        {"intermediate_size": 10**9},
        {"image_size": 10**7},
        {"image_size": [32, 10**10]},
        {"patch_size": 10**6, "image_size": 10**6},
        {"num_frames": 10**9},
        {"num_mel_bins": 10**9},
        {"spectrogram_length": 10**10},
        {"num_fusion_tokens": 10**10},
        {"decoder_hidden_size": 10**9},
        {"decoder_num_hidden_layers": 10**9},
        {"hidden_size": 60000, "num_hidden_layers": 24},
        {"fusion_mlp_ratio": 1e9},
        {"num_labels": 10**9},
    ],
    ids=str,
)
def test_models_that_no_machine_holds_are_refused(tmp_path, settings):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deepavfusion", **settings}))
    for build in (lambda: DeepAVFusionConfig(**settings), lambda: DeepAVFusionConfig.from_pretrained(tmp_path)):
        with pytest.raises(ValueError, match="DEEPAVFUSION_MAX_PARAMETERS|expected at most") as error:
            build()
        assert "\n" not in str(error.value)


def test_the_size_of_models_is_a_setting(monkeypatch):
    count = count_parameters(tiny_config())
    monkeypatch.setenv("DEEPAVFUSION_MAX_PARAMETERS", str(count - 1))
    with pytest.raises(ValueError, match=f"more than the limit of {count - 1}"):
        tiny_config()
    monkeypatch.setenv("DEEPAVFUSION_MAX_PARAMETERS", str(count))
    assert tiny_config().hidden_size
    monkeypatch.setenv("DEEPAVFUSION_MAX_PARAMETERS", "many")
    with pytest.raises(ValueError, match="expected a number"):
        tiny_config()


@pytest.mark.parametrize("size", ["small", "base"])
def test_sizes_are_estimated(size):
    config = DeepAVFusionConfig.from_size(size)
    with torch.device("meta"):
        model = DeepAVFusionForPreTraining(config)
    exact = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    assert count_parameters(config) == pytest.approx(exact, rel=0.3)


@pytest.fixture(scope="module")
def published():
    return export_original_state_dict(DeepAVFusionForPreTraining(DeepAVFusionConfig(**INFERABLE, **INFERABLE_DECODER)))


HUGE = 30_000_000


def renamed(tensors, old: str, new: str) -> dict:
    return tensors | {name.replace(old, new): tensor for name, tensor in tensors.items() if old in name}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "audio.blocks.0.",
            f"audio.blocks.{HUGE}.",
            rf"encoder\.audio\.blocks\.{HUGE} but not encoder\.audio\.blocks\.\d",
        ),
        ("image_decoder_blocks.0.", f"image_decoder_blocks.{HUGE}.", rf"image_decoder_blocks\.{HUGE} but not"),
        ("fusion_blocks.0.", f"fusion_blocks.{HUGE}.", "sizes that no model can have"),
        ("audio.blocks.0.", f"audio.blocks.{'9' * 5000}.", "Unknown"),
    ],
)
def test_numbers_in_names_of_checkpoints_build_nothing(published, old, new, message):
    with pytest.raises(ValueError, match=message):
        load_original_checkpoint(renamed(published, old, new))


def test_names_and_tables_alone_do_not_decide_the_size(published):
    """Fusion tokens of width 32768, and an MLP to match, claim a model of billions of weights."""
    wide = published | {"encoder.fusion_tokens": torch.zeros(1, 32, 32768)}
    with pytest.raises(ValueError, match="incomplete|MAX_PARAMETERS|sin-cos"):
        load_original_checkpoint(wide)


def test_tensors_that_are_not_stored_are_refused(tmp_path, published):
    name = next(name for name in published if name.endswith("mlp.fc1.weight"))
    torch.save(published | {name: torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "claims.pth")
    for source in (tmp_path / "claims.pth", published | {name: torch.zeros(4, 4).to_sparse()}):
        with pytest.raises(ValueError, match="fewer numbers than their shape claims"):
            load_original_checkpoint(source)


def test_compressed_checkpoints_do_not_expand(tmp_path):
    torch.save({"encoder.fusion_tokens": torch.zeros(2**20)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    with pytest.raises(ValueError, match="compressed archive that would expand to 4"):
        load_original_checkpoint(tmp_path / "bomb.pth")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMBS = {
    "laughs": LAUGHS,
    "deep": "[" * 2000 + "]" * 2000,
    "itself": "a: &a [*a]",
    "long": "a: " + "x" * 1_100_000,
    "many": "[" + "1," * 10_001 + "]",
    "date": "a: 2001-99-99",
    "number": "a: " + "9" * 5000,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_recipes_that_expand_are_refused(tmp_path, kind):
    with pytest.raises(yaml.YAMLError):
        load_values(BOMBS[kind])
    (tmp_path / "bomb.yaml").write_text(BOMBS[kind])
    with pytest.raises(RecipeError, match=r"bomb\.yaml") as error:
        load_recipe("pretrain", str(tmp_path / "bomb.yaml"))
    assert len(str(error.value)) < 1000


def test_overrides_that_expand_are_refused():
    with pytest.raises(RecipeError, match="not valid YAML") as error:
        load_recipe("pretrain", "scenes_tiny", ["optim.epochs=[&a [1], *a, " + "[" * 2000 + "]" * 2000 + "]"])
    assert "nested too deeply" in str(error.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("optim: {epochs: 1}\ndata:\n  name: scenes\noptim: {base_lr: 0.5}\n", "has optim twice, in lines 1 and 4"),
        ("optim: {epochs: 1, epochs: 2}\n", "has epochs twice, in lines 1 and 1"),
        ("data: [{a: 1}, {b: 1, c: 2,\n b: 3}]\n", "has b twice, in lines 1 and 2"),
    ],
)
def test_keys_that_stand_twice_are_refused(text, found, tmp_path):
    with pytest.raises(yaml.YAMLError, match=found):
        load_values(text)
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(RecipeError, match=found) as error:
        load_recipe("pretrain", str(tmp_path / "twice.yaml"))
    assert "twice.yaml" in str(error.value)


def test_the_number_of_values_is_a_setting(monkeypatch):
    text = "a: &a [1, 2, 3]\nb: [*a, *a]\n"
    monkeypatch.setenv("DEEPAVFUSION_MAX_RECIPE_VALUES", "16")
    assert load_values(text) == {"a": [1, 2, 3], "b": [[1, 2, 3], [1, 2, 3]]}
    monkeypatch.setenv("DEEPAVFUSION_MAX_RECIPE_VALUES", "15")
    with pytest.raises(yaml.YAMLError, match="more than 15 values"):
        load_values(text)


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (DeepAVFusionImageProcessor, {"size": 10**9}),
        (DeepAVFusionImageProcessor, {"size": [1, 10**9]}),
        (DeepAVFusionImageProcessor, {"crop_pct": 1e-9}),
        (DeepAVFusionVideoProcessor, {"num_frames": 10**9}),
        (DeepAVFusionFeatureExtractor, {"num_mel_bins": 10**9}),
        (DeepAVFusionFeatureExtractor, {"spectrogram_length": 10**9}),
        (DeepAVFusionFeatureExtractor, {"hop_length": 10**9}),
        (DeepAVFusionFeatureExtractor, {"hop_length": 65536, "spectrogram_length": 10**6}),
        (DeepAVFusionFeatureExtractor, {"n_fft": 10**9}),
        (DeepAVFusionFeatureExtractor, {"sampling_rate": 10**9}),
    ],
    ids=str,
)
def test_settings_of_processors_are_limited(build, settings):
    with pytest.raises(ValueError, match="at most"):
        build(**settings)


CHILD = """
import resource, sys, torch
from deepavfusion import DeepAVFusionConfig, MediaError, load_clip, load_original_checkpoint
from deepavfusion.processors.recordings_deepavfusion import Recording
from deepavfusion.training.data.views import read_image

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def refuse(action, *errors):
    try:
        action()
    except errors:
        return
    raise SystemExit("accepted")

bomb, blocks, wide = sys.argv[1:]
from PIL import Image
refuse(lambda: load_clip(__file__), MediaError)
before = megabytes()
refuse(lambda: load_clip(bomb), MediaError)
refuse(lambda: load_clip(open(bomb, "rb")), MediaError)
refuse(lambda: read_image(bomb), MediaError)
refuse(lambda: DeepAVFusionConfig(hidden_size=10**9), ValueError)
refuse(lambda: DeepAVFusionConfig(num_labels=10**9), ValueError)
refuse(lambda: load_original_checkpoint(blocks), ValueError)
refuse(lambda: load_original_checkpoint(wide), ValueError)
print(megabytes() - before)
"""


def test_refusing_takes_no_memory(tmp_path, published):
    (tmp_path / "bomb.gif").write_bytes(IMAGES["gif"])
    torch.save(renamed(published, "audio.blocks.0.", f"audio.blocks.{HUGE}."), tmp_path / "blocks.pth")
    torch.save(published | {"encoder.image.pos_embed": torch.zeros(1).expand(1, 10**8, 64)}, tmp_path / "wide.pth")
    (tmp_path / "child.py").write_text(CHILD)
    files = [str(tmp_path / name) for name in ("child.py", "bomb.gif", "blocks.pth", "wide.pth")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run([warm_python(), *files], capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    assert float(run.stdout) < 60, "megabytes"
