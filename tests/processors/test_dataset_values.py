"""What `datasets`, pandas and fsspec return is taken as it is: alone, in lists and as columns."""

import io
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import fsspec
import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torch.utils.data import default_collate

from deepavfusion import DeepAVFusionConfig, DeepAVFusionFeatureExtractor, DeepAVFusionProcessor, MediaError, load_clip
from deepavfusion.processors import sources_deepavfusion
from deepavfusion.processors.sources_deepavfusion import as_items, is_file
from tests.isolated import run_python
from tests.media_factory import tone, write_media
from tests.processors.torchcodec_stand_ins import AudioDecoder, VideoDecoder, as_datasets_returns

datasets = pytest.importorskip("datasets")

TINY = {"image_size": [32, 48], "num_mel_bins": 64, "spectrogram_length": 64}  # 1 s


@pytest.fixture(scope="module")
def processor():
    return DeepAVFusionProcessor.from_config(DeepAVFusionConfig(**TINY))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("values")
    made = SimpleNamespace(folder=folder)
    made.clip, made.other, made.silent = (str(folder / name) for name in ("clip.mp4", "other.mkv", "silent.mp4"))
    write_media(made.clip)
    write_media(made.other, seconds=2.0)
    write_media(made.silent, audio_codec=None)
    made.low, made.high = str(folder / "low.wav"), str(folder / "high.wav")
    for path, rate in ((made.low, 8000), (made.high, 44100)):
        wave = tone(rate, 2.5)[0] * np.linspace(0.2, 1, round(2.5 * rate), dtype=np.float32)
        write_media(path, codec=None, audio=wave[None], audio_codec="pcm_s16le", rate=rate)
    made.image = str(folder / "image.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(made.image)
    return made


def content(path):
    return Path(path).read_bytes()


def video_decoder(path):
    """Decode all frames of a clip of ten frames a second."""
    count = 20 if path.endswith("other.mkv") else 40
    return VideoDecoder(load_clip(path, num_frames=count, seconds=count / 10).frames, fps=10)


def sound(path):
    decoder = AudioDecoder(path)
    return {"array": decoder["array"], "sampling_rate": decoder["sampling_rate"], "path": path}


def column(feature, *paths):
    """A column as `datasets` returns it without torchcodec."""
    data = datasets.Dataset.from_dict({"value": list(paths)})
    return data.cast_column("value", feature(decode=False))["value"]


def decoded_column(*values):
    """A column whose values are decoded as they are read."""
    data = datasets.Dataset.from_dict({"value": list(range(len(values)))})
    data.set_transform(lambda rows: {"value": [values[index] for index in rows["value"]]})
    return data["value"]


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        assert_close(found[name], expected[name], rtol=0, atol=0)


FILES = {
    "path": lambda path: Path(path),
    "text of numpy": lambda path: np.str_(path),
    "bytes": content,
    "file object": lambda path: io.BytesIO(content(path)),
    "fsspec's OpenFile": lambda path: fsspec.open(path),
    "fsspec's file object": lambda path: fsspec.open(path).open(),
    "address": lambda path: f"file://{path}",
    "path of datasets": lambda path: {"path": path, "bytes": None},
    "bytes of datasets": lambda path: {"path": "clip.mp4", "bytes": content(path)},
    "bytes alone": lambda path: {"bytes": content(path)},
    "decoder of a path": lambda path: as_datasets_returns(video_decoder(path), path),
    "decoder of bytes": lambda path: as_datasets_returns(video_decoder(path), None, content(path)),
    "AudioDecoder of the file": lambda path: as_datasets_returns(AudioDecoder(path), path),
}

SEQUENCES = {
    "list": list,
    "tuple": tuple,
    "generator": iter,
    "dictionary's values": lambda paths: dict(enumerate(paths)).values(),
    "numpy": np.array,
    "numpy objects": lambda paths: np.array([Path(path) for path in paths]),
    "pandas": pandas.Series,
    "pandas strings": lambda paths: pandas.Series(paths, dtype="string"),
    "fsspec's OpenFiles": lambda paths: fsspec.open_files(list(paths)),
    "column of text": lambda paths: datasets.Dataset.from_dict({"file": list(paths)})["file"],
    "Video column": lambda paths: column(datasets.Video, *paths),
    "Audio column": lambda paths: column(datasets.Audio, *paths),
    "decoded column": lambda paths: decoded_column(*(FILES["decoder of a path"](path) for path in paths)),
    "mixed": lambda paths: [FILES["bytes of datasets"](paths[0]), Path(paths[1])],
}


class TestFiles:
    @pytest.mark.parametrize("form", FILES)
    def test_forms_of_a_file(self, processor, files, form):
        expected = processor(videos=files.clip, timestamps=1.5)
        assert_same(processor(videos=FILES[form](files.clip), timestamps=1.5), expected)
        assert_same(processor(videos=[FILES[form](files.clip)], timestamps=[1.5]), expected)
        assert_same(processor(videos=FILES[form](files.clip), num_clips=2), processor(videos=files.clip, num_clips=2))

    @pytest.mark.parametrize("form", SEQUENCES)
    def test_sequences_of_files(self, processor, files, form):
        paths = [files.clip, files.other]
        found = processor(videos=SEQUENCES[form](paths), timestamps=(2.0, 0.5))
        assert_same(found, processor(videos=paths, timestamps=[2.0, 0.5]))

    @pytest.mark.parametrize(
        "form", [tuple, np.array, torch.tensor, pandas.Series, iter], ids=lambda form: form.__name__
    )
    def test_sequences_of_timestamps(self, processor, files, form):
        expected = processor(videos=[files.clip, files.other], timestamps=[2.0, 0.5])
        assert_same(processor(videos=[files.clip, files.other], timestamps=form([2.0, 0.5])), expected)
        one = processor(videos=files.clip, timestamps=[2.0, 0.5])
        assert_same(processor(videos=files.clip, timestamps=form([2.0, 0.5])), one)

    def test_frames_of_a_decoder_that_does_not_know_its_file(self, processor, files):
        expected = processor(videos=files.silent, timestamps=[0.5, 3.0])
        frames = load_clip(files.silent, num_frames=40, seconds=4.0).frames
        for decoder in (
            VideoDecoder(frames, fps=10),
            VideoDecoder(frames, fps=10, begin=7.5),
            VideoDecoder(frames, fps=10, dimension_order="NHWC"),
        ):
            assert_same(processor(videos=decoder, timestamps=[0.5, 3.0]), expected)
            assert processor(videos=[decoder], num_clips=3).pixel_values.shape[0] == 3
        assert_same(processor(videos=AudioDecoder(files.high)), processor(videos=files.high))

    def test_errors_of_a_decoder_name_it(self, processor, files):
        decoder = video_decoder(files.other)
        decoder.metadata.path = "clip of a column.mp4"
        decoder.get_frames_played_at = lambda seconds: 1 // 0
        with pytest.raises(MediaError, match=r"clip of a column.mp4: expected images, but ZeroDivisionError"):
            processor(videos=decoder)
        decoder.get_frames_played_at = lambda frames: None  # another version of torchcodec is not a broken file
        with pytest.raises(TypeError, match="seconds"):
            processor(videos=decoder)

    def test_errors_of_bytes_name_their_path(self, processor):
        with pytest.raises(MediaError, match=r"^broken\.mp4: expected"):
            processor(videos={"path": "broken.mp4", "bytes": b"nothing of the kind"})

    def test_files_and_arrays_are_not_mixed(self, processor, files):
        with pytest.raises(TypeError, match="Expected files alone, or none, in videos, got ndarray beside a file"):
            processor(videos=[files.clip, np.zeros((2, 8, 8, 3), np.uint8)])


class TestImages:
    def test_files_and_values_of_datasets(self, processor, files):
        reference = processor(images=Image.open(files.image))
        for same in (files.image, Path(files.image), content(files.image), {"path": files.image, "bytes": None}):
            assert_same(processor(images=same), reference)
            assert_same(processor.image_processor(same), reference)
        two = processor(images=[Image.open(files.image)] * 2)
        decoded = datasets.Dataset.from_dict({"i": [files.image] * 2}).cast_column("i", datasets.Image())["i"]
        for same in (decoded, column(datasets.Image, files.image, files.image), np.array([files.image] * 2)):
            assert_same(processor(images=same), two)
            assert_same(processor.image_processor(same), two)

    def test_the_image_of_a_video_is_that_in_its_middle(self, processor, files):
        expected = processor(images=load_clip(files.silent).frames[0])
        for video in (files.silent, video_decoder(files.silent), column(datasets.Video, files.silent)):
            assert_same(processor(images=video), expected)

    def test_videos_as_input_of_the_parts(self, files):
        video = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(**TINY, num_frames=4))
        frames = load_clip(files.clip, num_frames=4, seconds=4.0).frames
        assert_same(video.video_processor(files.clip), video.video_processor(frames))
        assert_same(video.video_processor([files.clip, files.clip]), video.video_processor([frames, frames]))
        assert_same(video(images=[files.image]), video(images=[Image.open(files.image)]))


class TestSounds:
    @pytest.mark.parametrize(
        "form",
        {
            "path": str,
            "pathlib": Path,
            "bytes of datasets": lambda path: {"path": None, "bytes": content(path)},
            "array of datasets": sound,
            "decoder": lambda path: as_datasets_returns(AudioDecoder(path), path),
            "decoder that does not know its file": AudioDecoder,
        }.items(),
        ids=lambda form: form[0],
    )
    def test_each_sound_has_its_own_rate(self, processor, files, form):
        make = form[1]
        waveforms = [sound(path)["array"] for path in (files.low, files.high)]
        expected = [processor(audio=w, sampling_rate=r) for w, r in zip(waveforms, (8000, 44100), strict=True)]
        assert len({single.input_features[0, 0].mean(-1).argmax().item() for single in expected}) == 1  # the same tone
        for path, single in zip((files.low, files.high), expected, strict=True):
            assert_close(processor(audio=make(path)).input_features, single.input_features, rtol=0, atol=1e-4)
            assert_close(
                processor.feature_extractor(make(path)).input_features, single.input_features, rtol=0, atol=1e-4
            )
        values = [make(files.low), make(files.high)]
        both = torch.cat([single.input_features for single in expected])
        for batch in (values, tuple(values), iter(values), decoded_column(*values)):
            assert_close(processor(audio=batch).input_features, both, rtol=0, atol=1e-4)
        for rates in ([8000, 44100], (8000, 44100), np.array([8000, 44100]), pandas.Series([8000, 44100])):
            found = processor(audio=waveforms, sampling_rate=rates)
            assert_close(found.input_features, both, rtol=0, atol=1e-4)

    def test_columns(self, processor, files):
        two = processor(audio=[files.low, files.high])
        assert_same(processor(audio=column(datasets.Audio, files.low, files.high)), two)
        assert_same(processor(audio=pandas.Series([files.low, files.high])), two)
        with_gap = processor(audio=pandas.Series([files.low, None, np.nan]), images=[files.image] * 3)
        assert with_gap.audio_present.tolist() == [True, False, False]

    def test_rates_that_contradict_each_other_raise(self, processor, files):
        with pytest.raises(ValueError, match="one sampling rate, got 44100 with the audio and sampling_rate=16000"):
            processor(audio=files.high, sampling_rate=16000)
        assert_same(processor(audio=files.high, sampling_rate=44100), processor(audio=files.high))
        with pytest.raises(ValueError, match="one for each of 2 sounds, got 3"):
            processor(audio=[files.low, files.high], sampling_rate=[8000, 44100, 8000])

    def test_files_are_decoded_no_further_than_needed(self, files, monkeypatch):
        extractor = DeepAVFusionFeatureExtractor(spectrogram_length=64)
        asked = []
        decoder = AudioDecoder(files.high)
        monkeypatch.setattr(decoder, "get_all_samples", lambda: pytest.fail("decoded to the end"))
        part = decoder.get_samples_played_in_range
        decoder.get_samples_played_in_range = lambda start, stop: asked.append(stop) or part(start, stop)
        extractor(decoder)
        assert asked == [2.0]

    def test_separation_takes_whole_recordings(self, processor, files):
        windows = processor.separation_windows(files.high)
        array = sound(files.high)
        assert_close(windows.input_features, processor.separation_windows(array["array"], 44100).input_features)
        logits = torch.full((len(windows.starts), 1, 64, 64), 20.0)
        for mixture in (files.high, [sound(files.high)], AudioDecoder(files.high)):
            [source] = processor.post_process_source_separation({"logits": logits}, mixture, starts=windows.starts)
            assert source.shape == array["array"].shape  # at its own rate


class TestVideosWithAudio:
    def test_columns_of_videos_and_sounds(self, processor, files):
        """A window of a sound is that of its video's frames."""
        found = processor(videos=[files.silent, files.silent], audio=[files.low, files.clip], timestamps=[1.0, 3.0])
        assert_same(
            {"pixel_values": found.pixel_values},
            processor(videos=[files.silent, files.silent], timestamps=[1.0, 3.0]),
        )
        clip = load_clip(files.low, 1.0, seconds=1.0)
        expected = processor(audio=clip.waveform, sampling_rate=clip.sampling_rate)
        assert_close(found.input_features[:1], expected.input_features, rtol=0, atol=1e-3)
        own = processor(videos=files.clip, timestamps=3.0)
        assert_close(found.input_features[1:], own.input_features, rtol=0, atol=1e-2)

    def test_missing_values(self, processor, files):
        found = processor(videos=[files.silent, None, files.clip], audio=[None, files.low, None], num_clips=2)
        assert found.image_present.tolist() == [True, True, False, False, True, True]
        assert found.audio_present.tolist() == [False, False, True, True, False, False]
        with pytest.raises(ValueError, match="file or audio in every sample, got neither in sample 1"):
            processor(videos=[files.clip, None])
        with pytest.raises(ValueError, match="neither in sample 0"):
            processor(videos=[None, files.clip], audio=[None, files.low])
        with pytest.raises(ValueError, match="as many sounds as videos, got 1 and 2"):
            processor(videos=[files.clip] * 2, audio=[files.low])

    def test_audio_that_ends_before_the_frame_raises(self, processor, files):
        for arguments in (
            {"videos": files.clip, "audio": files.low, "timestamps": 3.5},
            {"videos": [None, files.clip], "audio": [files.low, files.low], "timestamps": [3.5, 1.0]},
        ):
            with pytest.raises(ValueError, match=r"audio up to the timestamp 3.50 s, got 2.50 s"):
                processor(**arguments)

    def test_default_windows_are_within_both(self, processor, files):
        assert_same(
            processor(videos=files.clip, audio=files.low),
            processor(videos=files.clip, audio=files.low, timestamps=1.25),
        )
        spread = processor(videos=files.clip, audio=files.low, num_clips=2)
        assert_same(spread, processor(videos=files.clip, audio=files.low, timestamps=[0.5, 2.0]))
        for arguments in ({"num_clips": 2, "timestamps": 1.0}, {"num_clips": 0}, {"timestamps": []}):
            with pytest.raises(ValueError, match="num_clips|at least one timestamp"):
                processor(videos=files.clip, audio=files.low, **arguments)


class RangeHandler(BaseHTTPRequestHandler):
    content = b""

    def do_HEAD(self):
        self._answer(False)

    def do_GET(self):
        self._answer(True)

    def _answer(self, body):
        if not self.path.endswith(".mp4"):
            return self.send_error(404)
        part, status = self.content, 200
        if "Range" in self.headers:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            part, status = part[int(first) : int(last or len(part)) + 1], 206
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return self.wfile.write(part) if body else None

    def log_message(self, *args):
        pass


class TestAddresses:
    def test_memory_and_archives(self, processor, files):
        fsspec.filesystem("memory").pipe("/folder/clip.mp4", content(files.clip))
        archive = files.folder / "archive.zip"
        with zipfile.ZipFile(archive, "w") as opened:
            opened.write(files.clip, "clip.mp4")
        expected = processor(videos=files.clip, num_clips=2)
        for address in ("memory://folder/clip.mp4", f"zip://clip.mp4::{archive}", f"zip://clip.mp4::file://{archive}"):
            assert_same(processor(videos=address, num_clips=2), expected)
            assert_same(processor(videos=[address], num_clips=2), expected)
            assert_close(load_clip(address).frames, load_clip(files.clip).frames)

    def test_http(self, processor, files):
        pytest.importorskip("aiohttp")
        handler = type("Handler", (RangeHandler,), {"content": content(files.clip)})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            root = f"http://127.0.0.1:{server.server_port}"
            try:
                assert_same(processor(videos=f"{root}/clip.mp4"), processor(videos=files.clip))
                with pytest.raises(MediaError, match=rf"^{root}/absent: expected a media file, but there is no such"):
                    processor(videos=f"{root}/absent")
            finally:
                server.shutdown()

    @pytest.mark.parametrize(
        ("address", "reason"),
        [
            ("memory://absent.mp4", "there is no such file"),
            ("zip://absent.mp4::{archive}", "there is no such file|absent.mp4"),
            ("nowhere://clip.mp4", "Protocol not known: nowhere"),
            ("http://127.0.0.1:9/clip.mp4", r"its address cannot be reached \(.*127\.0\.0\.1:?'?,? "),
        ],
    )
    def test_addresses_that_cannot_be_opened_are_named(self, processor, files, address, reason):
        address = address.format(archive=files.folder / "empty.zip")
        with zipfile.ZipFile(files.folder / "empty.zip", "w"):
            pass
        for arguments in ({"videos": address}, {"images": address}, {"audio": [address]}):
            with pytest.raises(MediaError, match=reason) as raised:
                processor(**arguments)
            assert str(raised.value).startswith(f"{address}: expected")

    def test_missing_packages_are_named(self, processor, monkeypatch):
        def fail(*args, **kwargs):
            raise ImportError("Install s3fs to access S3")

        with monkeypatch.context() as patch:
            patch.setattr(fsspec, "open", fail)
            with pytest.raises(ImportError, match=r"^s3://bucket/clip.mp4: expected the package .* Install s3fs"):
                processor(videos="s3://bucket/clip.mp4")
        monkeypatch.setattr(sources_deepavfusion, "fsspec", None)
        with pytest.raises(ImportError, match=r"^hf://datasets/a/b/c.mp4: expected fsspec .* pip install fsspec"):
            processor(videos="hf://datasets/a/b/c.mp4")

    def test_local_files_are_no_addresses(self, processor, files, monkeypatch):
        name = files.folder / "a::b.mp4"
        name.write_bytes(content(files.clip))
        monkeypatch.chdir(files.folder)
        assert_same(processor(videos="a::b.mp4"), processor(videos=files.clip))
        with pytest.raises(MediaError, match=r"C:\\clip.mp4: expected a media file, but there is no such file"):
            processor(videos=r"C:\clip.mp4")


def test_values_that_are_no_sequences_of_values():
    for value in (np.zeros((2, 3)), torch.zeros(3), Image.new("RGB", (2, 2)), pandas.Series([0.1, 0.2]), 3.5, None):
        assert as_items(value) is None
        assert not is_file(value)
    assert as_items([0.5, float("nan")])[1] != 0.5  # a waveform, whose NaN is reported later
    assert as_items(pandas.Series(["a", pandas.NA, None], dtype="string")) == ["a", None, None]


class TestFieldsDoNotDependOnTheData:
    FIELDS = {"pixel_values", "input_features", "image_present", "audio_present"}

    @pytest.mark.parametrize("batch_size", [1, 2, 3])
    def test_map_and_default_collation(self, processor, files, batch_size):
        """In every batch of `map`, whatever its clips lack, and in the batches of the result."""
        paths = [files.clip, files.silent, files.low]
        data = datasets.Dataset.from_dict({"video": paths})
        mapped = data.map(
            lambda rows: processor(videos=rows["video"], return_presence=True),
            batched=True,
            batch_size=batch_size,
            remove_columns="video",
        )
        assert set(mapped.column_names) == self.FIELDS
        batch = default_collate(list(mapped.with_format("torch")))
        assert batch["image_present"].tolist() == [True, True, False]
        assert batch["audio_present"].tolist() == [True, False, True]
        assert_close(batch["pixel_values"], processor(videos=paths).pixel_values)

    def test_by_the_attribute(self, processor, files):
        always = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(**TINY))
        always.return_presence = True
        for path in (files.clip, files.silent, files.low):
            assert set(always(videos=path)) == self.FIELDS
        assert set(always(videos=files.clip, return_presence=False)) == {"pixel_values", "input_features"}
        assert set(always(images=files.image)) == set(always(audio=files.low)) == self.FIELDS

    def test_collate(self, processor, files):
        samples = [
            {name: value[0] for name, value in processor(videos=path).items()} for path in (files.low, files.clip)
        ]
        assert set(processor.collate(samples)) == set(processor.collate(samples[:1])) == self.FIELDS


def test_saving_does_not_change_the_hash(tmp_path):
    """Or else `map` would compute everything again."""
    from datasets.fingerprint import Hasher

    for frames in (1, 4):
        processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(**TINY, num_frames=frames))
        parts = [processor, processor.feature_extractor, processor.visual_processor]
        hashes = [Hasher.hash(part) for part in parts]
        for index, part in enumerate(parts):
            part.save_pretrained(tmp_path / str(index))
            assert [Hasher.hash(part) for part in parts] == hashes
        processor(images=np.zeros((40, 60, 3), np.uint8), audio=np.zeros(16000), sampling_rate=16000)
        loaded = DeepAVFusionProcessor.from_pretrained(tmp_path / "0")
        loaded.save_pretrained(tmp_path / "again")
        parts = [processor, loaded, DeepAVFusionProcessor.from_pretrained(tmp_path / "again")]
        assert len({Hasher.hash(part) for part in parts}) == 1


FORKED_MAP = """
import numpy as np
import torch
from datasets import Dataset

from deepavfusion import DeepAVFusionConfig, DeepAVFusionProcessor

torch.set_num_threads(2)
processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(image_size=64))
image, sound = np.random.default_rng(0).random((360, 480, 3), np.float32), np.zeros(48000, np.float32)
processor(images=image, audio=sound, sampling_rate=16000)


def prepare(rows):
    count = len(rows["row"])
    return processor(images=[image] * count, audio=[sound] * count, sampling_rate=16000, return_presence=True)


data = Dataset.from_dict({"row": list(range(4))}).map(prepare, batched=True, batch_size=2, num_proc=2)
print(np.shape(data[3]["input_features"]), torch.get_num_threads())
"""


def test_map_in_several_processes_after_a_call(tmp_path):
    """Forked processes have none of the threads of torch in their parent, for which they would wait forever."""
    assert run_python(FORKED_MAP, home=tmp_path).split("\n")[-2:][0] == "(1, 128, 192) 2"
