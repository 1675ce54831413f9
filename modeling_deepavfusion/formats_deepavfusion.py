"""What kind of file came where a checkpoint is expected: known from its first bytes, before anything is loaded."""

import os
import re
import zipfile

_SIGNATURES = (
    (rb".{4}ftyp(?!hei|hev|avi|mif|msf)", "an MP4 or QuickTime file"),
    (rb".{4}ftyp", "an image (HEIC or AVIF)"),
    (rb"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (rb"RIFF.{4}WAVE", "a WAV file"),
    (rb"RIFF.{4}AVI ", "an AVI file"),
    (rb"RIFF.{4}WEBP", "an image (WebP)"),
    (rb"\x89PNG", "an image (PNG)"),
    (rb"\xff\xd8\xff", "an image (JPEG)"),
    (rb"GIF8", "an image (GIF)"),
    (rb"fLaC", "a FLAC file"),
    (rb"OggS", "an Ogg file"),
    (rb"ID3|\xff[\xf2\xf3\xfb]", "an MP3 file"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"\x93NUMPY", "an array of NumPy"),
    (rb"GGUF", "a GGUF file"),
    (rb"%PDF", "a PDF file"),
    (rb"\x1f\x8b", "a gzip archive: unpack it"),
    (rb"version https://git-lfs", "a Git LFS pointer in place of the content: run `git lfs pull` in its repository"),
)
_SAFETENSORS = ".safetensors"
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")
_PICKLE, _ARCHIVE = b"\x80", b"PK\x03\x04"
_HEAD = 512  # bytes


def checkpoint_fault(path: str | os.PathLike) -> str | None:
    """What was expected and what came, of a file that is no checkpoint; None if it may be one.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    tensors = len(head) > 8 and 0 < int.from_bytes(head[:8], "little") <= os.path.getsize(path) and head[8:9] == b"{"
    if os.fspath(path).endswith(_SAFETENSORS):
        kind = None if tensors else _kind(head)
        if not tensors and kind is None and head.startswith((_PICKLE, _ARCHIVE)):
            kind = "a file as torch.save writes it: name it .pth"
    else:
        kind = f"a safetensors file: name it {_SAFETENSORS}" if tensors else _kind(head)
        if kind is None and head.startswith(_ARCHIVE) and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                saved = any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
            kind = None if saved else "a zip archive of other files"
    return None if kind is None else f"expected a checkpoint, .pth or {_SAFETENSORS}, got {kind}"


def _kind(head: bytes) -> str | None:
    if not head:
        return "an empty file"
    for signature, kind in _SIGNATURES:
        if re.match(signature, head, re.DOTALL):
            return kind
    return "text" if _TEXT.fullmatch(head) and not head.startswith(_PICKLE) else None


__all__ = ["checkpoint_fault"]
