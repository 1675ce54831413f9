"""Media files opened with PyAV: what is no such file is refused first, and all errors are of one kind."""

import io
import os
from contextlib import contextmanager

from .limits_deepavfusion import LimitError, MediaError, decoder_options
from .sources_deepavfusion import open_file
from .stills_deepavfusion import is_image_file

try:
    import av
except ImportError:
    av = None


class MediaFile:
    """A file that can be opened repeatedly.

    Args:
        path: Path, bytes, or a seekable binary file object.

    Attributes:
        name: Name of the file in errors.
        is_image: Whether the file is an image.

    Raises:
        MediaError: If there is no such file, or it cannot be one of media.
        TypeError: If `path` has an unsupported type.
    """

    def __init__(self, path):
        if av is None:
            raise ImportError("Expected PyAV to read media files, but it is not installed: pip install av")
        self.is_image = False
        self._keeps, self._kept = False, None  # whether a container is kept open, and which
        path = open_file(path)
        if hasattr(path, "read"):
            name = getattr(path, "name", None)  # a number or None for temporary files
            self.file, self.name = path, name if isinstance(name, str) else "file object"
            if getattr(path, "closed", False):
                raise self.error("a seekable binary file object", "it is closed")
            if not (path.seekable() if hasattr(path, "seekable") else hasattr(path, "seek")):
                raise self.error("a seekable binary file object", f"{type(path).__name__} is not")
            self._check(self._check_file)
        elif isinstance(path, (str, os.PathLike)):
            self.file, self.name = None, os.fsdecode(path)
            self._check(self._check_path)
        else:
            raise TypeError(f"Expected a path, bytes or a binary file object, got {type(path).__name__}.")

    def error(self, expected: str, reason: str) -> MediaError:
        """Return an error that names the file."""
        return MediaError(f"{self.name}: expected {expected}, but {reason}.")

    def _check(self, check) -> None:
        """Run one of the checks below, turning errors of the system or the file object into `MediaError`."""
        try:
            check()
        except OSError as error:
            raise self.error("a media file", failure_reason(error)) from error

    def _check_file(self) -> None:
        if isinstance(self.file, io.TextIOBase) or isinstance(self.file.read(0), str):
            raise self.error("a seekable binary file object", "it is opened as text")
        self.file.seek(0)
        self._check_start(self.file)

    def _check_path(self) -> None:
        if os.path.isdir(self.name):
            raise self.error("a media file", "it is a directory")
        if not os.path.exists(self.name):
            broken = os.path.islink(self.name)
            raise self.error("a media file", "it is a broken link" if broken else "there is no such file")
        if not os.path.isfile(self.name):  # opening a pipe would block until something is written
            raise self.error("a media file", "it is a pipe, socket or device; pass bytes instead")
        if os.path.getsize(self.name) == 0:
            raise self.error("a media file", "it is empty")
        with open(self.name, "rb") as file:
            self._check_start(file)

    def _check_start(self, file) -> None:
        """Refuse playlists: FFmpeg tries for minutes to reach their entries, and never ends if one includes itself."""
        start = file.read(12)
        if start.startswith((b"#EXTM3U", b"ffconcat")):
            raise self.error("a media file", "it is a playlist")
        self.is_image = is_image_file(start)

    @contextmanager
    def kept_open(self):
        """Open the file once for all that is read inside by seeking: opening an mp4 decodes some of its frames."""
        self._keeps = True
        try:
            yield
        finally:
            self._keeps = False
            self._close()

    def _close(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = None

    @contextmanager
    def open(self, expected: str, seeks: bool = False):
        """Open the container. Errors inside become `MediaError`, except those of an incompatible PyAV.

        Args:
            expected: What is read, for the error.
            seeks: Whether it is all the same where reading starts, so that a container that is kept open will do.

        Raises:
            MediaError: If the file cannot be read.
            AttributeError, ImportError, NameError, TypeError: If this code does not fit the installed PyAV.
        """
        try:
            if seeks and self._kept is not None:
                yield self._kept
                return
            self._close()  # a file object has one place where it is read
            if self.file is not None:
                self.file.seek(0)
            # "file:" keeps names with colons or dashes from being parsed as protocols or options; the whitelist keeps
            # playlists from opening URLs.
            target = self.file if self.file is not None else "file:" + self.name
            # The limit holds for frames that are decoded to probe the file.
            options = {"protocol_whitelist": "file", **decoder_options()}
            # Tags that are not UTF-8 must not make the file fail. PyAV 19 escapes them and no longer has the argument.
            tags = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
            # By default, PyAV uses the mode of a file object, and would write to temporary files.
            container = av.open(target, mode="r", options=options, **tags)
            if seeks and self._keeps:
                self._kept = container
                yield container
            else:
                with container:
                    yield container
        except LimitError as error:
            raise self.error(expected, str(error)) from error
        except (MediaError, AttributeError, ImportError, NameError, TypeError):
            raise
        except Exception as error:  # PyAV and FFmpeg raise a dozen kinds; callers should only need to catch one
            raise self.error(expected, failure_reason(error)) from error


def failure_reason(error: Exception) -> str:
    """Format an error without the number and the file name that the system and FFmpeg add."""
    if type(error).__name__ == "InvalidDataError":  # of FFmpeg, for all that it cannot make sense of
        return "it is damaged, cut off, or no media file"
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"


__all__ = ["MediaFile", "failure_reason"]
