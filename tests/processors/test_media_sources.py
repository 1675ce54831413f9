"""Sources of `load_clip`: paths, bytes, file objects, names, and sources that are not media files."""

import builtins
import io
import os
import shutil
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from deepavfusion.processors import containers_deepavfusion, stills_deepavfusion, streams_deepavfusion
from deepavfusion.processors.media_deepavfusion import MediaError, load_clip, probe_clip
from tests.media_factory import write_media


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_media(tmp_path_factory.mktemp("media") / "plain.mp4", seconds=4, fps=10)


@pytest.mark.parametrize("kind", ["path", "string", "bytes", "memoryview", "file", "stream"])
def test_kinds_of_source(plain, kind):
    expected = load_clip(plain)
    if kind == "file":
        with open(plain, "rb") as file:
            clip = load_clip(file)
    else:
        data = plain.read_bytes()
        source = {
            "path": plain,
            "string": str(plain),
            "bytes": data,
            "memoryview": memoryview(data),
            "stream": io.BytesIO(data),
        }[kind]
        clip = load_clip(source)
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_array_equal(clip.waveform, expected.waveform)


class BytesPath:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return os.fsencode(self.path)


def test_paths_of_bytes(plain):
    clip = load_clip(BytesPath(plain))
    np.testing.assert_array_equal(clip.frames, load_clip(plain).frames)


def test_path_of_a_clip(plain):
    assert load_clip(plain).path == load_clip(str(plain)).path == load_clip(BytesPath(plain)).path == str(plain)
    assert load_clip(plain.read_bytes()).path == "file object"


def test_file_objects_are_read_from_the_start_and_left_open(plain):
    """Also those opened for writing, in which PyAV would create a new file."""
    expected, data = load_clip(plain), plain.read_bytes()
    for kind in (tempfile.SpooledTemporaryFile, tempfile.TemporaryFile, tempfile.NamedTemporaryFile):
        with kind() as file:
            file.write(data)
            file.flush()
            clip = load_clip(file)
            assert not file.closed
            file.seek(0)
            assert file.read() == data
            assert clip.path == (file.name if kind is tempfile.NamedTemporaryFile else "file object")
        np.testing.assert_array_equal(clip.frames, expected.frames)
        np.testing.assert_array_equal(clip.waveform, expected.waveform)


def not_media(folder: Path) -> dict:
    """Create sources that are not media, by name."""
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no film at all\n" * 100)
    (folder / "folder.mp4").mkdir()
    (folder / "dangling.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nhttp://127.0.0.1:9/a.ts\n")
    write_media(folder / "headless.mp4", seconds=2)
    data = (folder / "headless.mp4").read_bytes()
    (folder / "headless.mp4").write_bytes(data[: data.index(b"moov") - 4])
    with av.open(str(folder / "nothing.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    names = ["empty.mp4", "text.mp4", "folder.mp4", "dangling.mp4", "noise.mp4", "list.m3u8", "headless.mp4"]
    sources = {name: folder / name for name in [*names, "nothing.mkv", "absent.mp4"]}
    playlist = (folder / "list.m3u8").read_bytes()
    return {**sources, "empty bytes": b"", "text bytes": b"no film at all" * 100, "playlist bytes": playlist}


NOT_MEDIA = ["empty.mp4", "text.mp4", "folder.mp4", "dangling.mp4", "noise.mp4", "list.m3u8", "headless.mp4"]


@pytest.mark.parametrize(
    "name", [*NOT_MEDIA, "nothing.mkv", "absent.mp4", "empty bytes", "text bytes", "playlist bytes"]
)
def test_sources_that_are_not_media_raise_media_error(tmp_path, name):
    with pytest.raises(MediaError) as raised:
        load_clip(not_media(tmp_path)[name])
    message = str(raised.value)
    assert message.count("file object" if "bytes" in name else name) == 1
    assert "expected" in message
    assert "Errno" not in message


@pytest.mark.parametrize("name", ["with space.mp4", "100%20.mp4", "Ünïcödé 音.mp4", "-dash.mp4", "a:b.mp4", "film.txt"])
def test_file_names(tmp_path, plain, monkeypatch, name):
    shutil.copy(plain, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load_clip(name).frames, load_clip(plain).frames)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "endless device"])
def test_special_files_raise_without_blocking(tmp_path, kind):
    path = tmp_path / "special.mp4"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.close()
    else:
        path = Path("/dev/null" if kind == "device" else "/dev/zero")
    with pytest.raises(MediaError, match="pipe, socket or device"):
        load_clip(path)


@pytest.mark.parametrize("name", ["nul\0byte.mp4", "long" * 2000, "", "\udcff.mp4"])
def test_impossible_file_names_raise(name):
    with pytest.raises(MediaError, match="there is no such file"):
        load_clip(name)


def test_a_link_to_itself_raises(tmp_path):
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    with pytest.raises(MediaError, match="broken link"):
        load_clip(tmp_path / "loop.mp4")


def test_unreadable_files_raise(plain, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(MediaError, match=r"plain\.mp4.*PermissionError.*Permission denied"):
        load_clip(plain)


class Failing(io.RawIOBase):
    """A file object that fails after so many reads."""

    def __init__(self, data: bytes, reads: int):
        self.inner, self.reads = io.BytesIO(data), reads

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        return self.inner.seek(offset, whence)

    def tell(self):
        return self.inner.tell()

    def read(self, size=-1):
        self.reads -= 1
        if self.reads < 0:
            raise OSError("the disk is gone")
        return self.inner.read(size)


def test_file_objects_that_fail_raise(plain):
    data = plain.read_bytes()
    assert load_clip(Failing(data, 10**6)).frames is not None
    for reads in range(3):  # all of a small file is read at once, after two checks
        with pytest.raises(MediaError, match="the disk is gone"):
            load_clip(Failing(data, reads))


def test_file_objects_for_text_or_writing_raise(tmp_path, plain):
    for text in (plain.open(encoding="utf-8"), plain.open(encoding="latin1"), io.StringIO("no film")):
        with text, pytest.raises(MediaError, match="binary file object.*it is opened as text"):
            load_clip(text)
    with open(tmp_path / "new.mp4", "wb") as file, pytest.raises(MediaError, match="UnsupportedOperation"):
        load_clip(file)

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    with pytest.raises(MediaError, match="seekable binary file object, but Pipe is not"):
        load_clip(Pipe(plain.read_bytes()))


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="Expected require as one of 'any', 'both'"):
        load_clip(b"x", require="sound")
    for wrong in ({"seconds": 0}, {"seconds": float("nan")}, {"seconds": float("inf")}, {"num_frames": 0}):
        with pytest.raises(ValueError, match="Expected positive num_frames and seconds"):
            load_clip(b"x", **wrong)
    with pytest.raises(TypeError, match="Expected a path, bytes or a binary file object, got int"):
        load_clip(5)


@pytest.mark.parametrize("call", [load_clip, probe_clip])
def test_missing_pyav_raises(plain, monkeypatch, call):
    monkeypatch.setattr(containers_deepavfusion, "av", None)
    with pytest.raises(ImportError, match="Expected PyAV to read media files.*pip install av"):
        call(plain)


@pytest.mark.parametrize("call", [load_clip, probe_clip])
@pytest.mark.parametrize("module", [containers_deepavfusion, streams_deepavfusion])
def test_missing_names_of_pyav_are_not_media_errors(plain, monkeypatch, module, call):
    monkeypatch.setattr(module, "av", SimpleNamespace(FFmpegError=av.FFmpegError))
    with pytest.raises(AttributeError, match="has no attribute"):
        call(plain)


def test_missing_names_of_pil_are_not_media_errors(tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(path)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "getexif", None)
    with pytest.raises(TypeError, match="not callable"):
        load_clip(path)
    monkeypatch.setattr(stills_deepavfusion, "Image", SimpleNamespace(DecompressionBombError=ValueError))
    with pytest.raises(AttributeError, match="has no attribute"):
        load_clip(path)


def test_errors_that_pil_raises_are_media_errors(tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(path)
    names = {"__name__": "PIL.PngImagePlugin"}
    exec("def load(self):\n    raise AttributeError('of a damaged image')", names)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", names["load"])
    with pytest.raises(MediaError, match="expected an image, but AttributeError: of a damaged image"):
        load_clip(path)


def test_other_arguments_of_pyav_are_not_media_errors(plain, monkeypatch):
    monkeypatch.setattr(
        containers_deepavfusion, "av", SimpleNamespace(__version__="19.0", open=lambda file: av.open(file))
    )
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        load_clip(plain)


def test_file_objects_without_method_seekable(plain):
    file = io.BytesIO(plain.read_bytes())
    minimal = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
    np.testing.assert_array_equal(load_clip(minimal).frames, load_clip(plain).frames)
