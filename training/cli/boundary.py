"""Boundary of all commands: whatever ends one becomes a line that says what was wrong, and an exit code.

0 success; 1 failed; 2 bad input; 130 after Ctrl-C (SIGINT); 143 after SIGTERM. A traceback is printed only on request,
by `--traceback`. Errors of this package have an `exit_code` and a message that names the file and says what to do; for
all others, `outcome` does.
"""

import contextlib
import errno
import functools
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from .terminal import say

FAILED, BAD_INPUT = 1, 2
TRACEBACK = "--traceback"
_STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_PACKAGES = ("deepavfusion", "deepavfusion_cli")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a user mends by another argument; other numbers are failures of the machine.
_BAD_PATHS = {
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "choose another folder",
    errno.ENOENT: "check the spelling",
    errno.ENOTDIR: "a part of the path is a file; choose another one",
    errno.EISDIR: "name a file",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.ELOOP: "check its links",
    errno.ENOTEMPTY: "choose another folder",
}
_ADVICE = _BAD_PATHS | {
    errno.EMFILE: "raise the limit (ulimit -n), or lower data.num_workers",
    errno.EFBIG: "raise the limit (ulimit -f), or choose another folder",
}
_UNSAFE = re.compile(r"weights_only|Weights only load failed|Unsupported (global|class|operand)")
_DAMAGED = re.compile(
    r"PytorchStreamReader|central directory|Ran out of input|unexpected (EOF|pos)|pickle data was truncated|"
    r"invalid (load key|magic number|header)|not a zip|Invalid magic number"
)
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|Cannot allocate memory|not enough memory", re.IGNORECASE)
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid.*?(killed by signal: \w[\w ]*|exited unexpectedly)", re.DOTALL)
_SHARED_MEMORY = re.compile(r"shared memory|/torch_\d|/dev/shm|insufficient shm")
_RAISED = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Warning): ", re.MULTILINE)


class Terminated(BaseException):
    """Raised by SIGTERM, as KeyboardInterrupt is by SIGINT, so that drafts are removed and locks released."""


def command(name: str) -> Callable[[Callable], Callable[..., int]]:
    """Decorate the `main` of a command: it returns an exit code, whatever happens.

    `--traceback` is taken out of its arguments, which are those of the process by default.

    Args:
        name: Name of the program, for messages.
    """

    def decorate(main: Callable[[list[str]], Any]) -> Callable[..., int]:
        @functools.wraps(main)
        def guarded(argv: list[str] | None = None) -> int:
            words = sys.argv[1:] if argv is None else [str(word) for word in argv]
            rest = [word for word in words if word != TRACEBACK]
            return guard(name, lambda: main(rest), traceback=len(rest) < len(words))

        return guarded

    return decorate


def guard(name: str, action: Callable[[], Any], traceback: bool = False, stops: bool = True) -> int:
    """Run an action of a command and return its exit code; errors are reported, none is raised.

    Args:
        name: Name of the program, for messages.
        action: What to run; returns an exit code, or anything else for success.
        traceback: Whether to print the traceback of an error.
        stops: Whether signals interrupt the action by exceptions; otherwise their handlers are left as they are.
    """
    with _raising_stops() if stops else contextlib.nullcontext(), _showing(traceback):
        try:
            try:
                code = action()
                return code if isinstance(code, int) else 0
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except (KeyboardInterrupt, Terminated) as error:
            number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
            _print_error(_STOPS[number], error)
            return 128 + number
        except Exception as error:
            lost = _silence_lost_outputs()
            if lost and isinstance(error, BrokenPipeError):
                return FAILED  # as in `deepavfusion --help | head -1`: nobody reads on
            return report(name, error)


def run_module(main: Callable[[list[str]], Any]) -> NoReturn:
    """Run the `main` of a module that `python -m` runs, whatever it returns, and exit with the exit code."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec is not None else sys.argv[0]
    sys.exit(command(f"python -m {module}")(main)())


def report(name: str, error: BaseException, lines: bool = True) -> int:
    """Print the message of an error, and return its exit code.

    Args:
        name: Name of the program.
        error: The error.
        lines: Whether the message may have several lines.
    """
    code, message = outcome(error)
    # All processes of a run raise errors of the package together: one line is enough.
    if not (hasattr(error, "exit_code") and int(os.environ.get("RANK", 0))):
        _print_error(f"{name}: {message if lines else ' '.join(message.split())}", error)
    return code


def outcome(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an error that ends a command."""
    if message := machine_failure(error):
        return FAILED, message
    own = getattr(error, "exit_code", None)
    if own is not None:
        return own, str(error)
    if isinstance(error, ImportError):
        return BAD_INPUT, one_line(error)
    if isinstance(error, OSError) and str(error):
        number = error_number(error)
        return (FAILED if number is not None and number not in _BAD_PATHS else BAD_INPUT), cause(error)
    if raised_by_package(error) and isinstance(error, ValueError | RuntimeError):
        return (BAD_INPUT if isinstance(error, ValueError) else FAILED), str(error)
    kind = type(error).__name__
    text = cause(error).removeprefix(kind).removeprefix(": ").rstrip(".")
    return FAILED, f"{kind}{text and f': {text}'} ({TRACEBACK} shows where)"


def machine_failure(error: BaseException) -> str | None:
    """Message of an error that has nothing to do with the input, such as a full disk; None for all others."""
    for link in _causes(error):
        if getattr(link, "exit_code", None) == FAILED:
            return str(link)
        if disk_is_full(link):
            return _full_disk(link)
        if isinstance(link, MemoryError) or (isinstance(link, RuntimeError | OSError) and _NO_MEMORY.search(str(link))):
            return _no_memory(link)
        if isinstance(link, RuntimeError) and (dead := _DEAD_WORKER.search(str(link))):
            return _dead_worker(" ".join(dead[1].split()))
    return None


def cause(error: BaseException, *named: str | os.PathLike) -> str:
    """Why an error was raised, in one line: without traceback, error numbers, and advice to load files unsafely.

    Args:
        error: The error.
        named: Paths that the caller's message names already; the text says "it" instead.
    """
    number = error_number(error)
    text = one_line(error)
    if number is not None and not _FULL & {number}:
        advice = f"; {_ADVICE[number]}" if number in _ADVICE else ""
        text = f"{os.strerror(number).lower()}{advice}"
    elif number is not None:
        text = "the disk is full"
    elif _UNSAFE.search(text) or type(error).__name__ == "UnpicklingError":
        text = "it holds Python objects other than tensors, which may run code when they are read, or is no checkpoint"
        if _DAMAGED.search(one_line(error)):
            text = "it is damaged, or no checkpoint"
    elif type(error).__name__ == "SafetensorError" or isinstance(error, EOFError) or _DAMAGED.search(text):
        text = "it is damaged or incomplete: copy or download it again"
    elif isinstance(error, UnicodeDecodeError):
        text = f"it is not {error.encoding.upper()} text (byte {error.start}): save it as UTF-8"
    elif type(error).__name__ == "JSONDecodeError":
        text = f"it is not valid JSON (line {getattr(error, 'lineno', 1)}: {getattr(error, 'msg', text)})"
    elif type(error).__module__ == "_csv":
        text = f"it is not valid csv ({text})"
    elif isinstance(error, RecursionError):
        text = "it is nested too deeply"
    elif not text or not isinstance(error, ValueError | RuntimeError | OSError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    names = [os.fspath(name) for name in named]
    file = getattr(error, "filename", None)
    if number is not None and isinstance(file, str | bytes) and os.fsdecode(file) not in names:
        text = f"{os.fsdecode(file)}: {text}"
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"(?<![\w/.-])(['\"]?){re.escape(name)}\1(?![\w/-])", "it", text)
    return text


def one_line(error: BaseException) -> str:
    """Message of an error without line breaks; of an error in a process that reads data, without its traceback."""
    text = str(error)
    if "Original Traceback" in text and (raised := list(_RAISED.finditer(text))):
        text = text[raised[-1].end() :]
    return " ".join(text.split())


def error_number(error: BaseException) -> int | None:
    """Number of an error of the operating system, also where only its text is left of it; else None."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\[Errno (\d+)\]|\(os error (\d+)\)", str(error))
    return int(found[1] or found[2]) if found else None


def disk_is_full(error: BaseException) -> bool:
    """Whether an error was raised because a disk, or a user's part of it, is full."""
    return error_number(error) in _FULL


def stop_at_once(number: int, frame: Any) -> None:
    """Handle a signal while a process starts or ends, when there is nothing to clean up."""
    with contextlib.suppress(OSError):
        os.write(2, f"{_STOPS[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


def own_process() -> None:
    """Handle signals from now on, in a process that runs nothing but a command."""
    if threading.current_thread() is threading.main_thread():
        for number in _STOPS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, stop_at_once)


def report_and_exit(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """Report an error that nothing caught, such as one while modules are imported: a `sys.excepthook`."""

    def reraise() -> int:
        raise error

    raise SystemExit(guard("deepavfusion", reraise, TRACEBACK in sys.argv, stops=False))


_show_traceback = False


@contextlib.contextmanager
def _showing(traceback: bool) -> Iterator[None]:
    """Let `report` show tracebacks, also where a command inside another one did not ask for it again."""
    global _show_traceback
    before, _show_traceback = _show_traceback, _show_traceback or traceback
    try:
        yield
    finally:
        _show_traceback = before


@contextlib.contextmanager
def _raising_stops() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise exceptions, unless they are ignored or handled by somebody else."""

    def raise_terminated(number: int, frame: Any) -> None:
        raise Terminated

    previous = {}
    if threading.current_thread() is threading.main_thread():
        replaced = (signal.SIG_DFL, stop_at_once)
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, raise_terminated)):
            if signal.getsignal(number) in replaced:
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _silence_lost_outputs() -> bool:
    """Redirect standard output and error to nowhere if nothing takes what is written; returns whether one was."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        try:
            number = stream.fileno()
        except (AttributeError, OSError, ValueError):  # closed, or not a stream of the system
            continue
        try:
            poll = select.poll()
            poll.register(number, 0)
            lost = bool(poll.poll(0))  # without events to wait for: only errors
            if not lost:
                stream.flush()
        except OSError:  # a pipe that was closed meanwhile, a file on a full disk
            lost = True
        if lost:
            # Python flushes both streams once more when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            found = True
    return found


def _print_error(message: str, error: BaseException) -> None:
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        if _show_traceback:
            from traceback import print_exception

            print_exception(error, file=sys.stderr)
        say(message, kept="\n\t", stream=sys.stderr)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it was raised from."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def raised_by_package(error: BaseException) -> bool:
    """Whether code of the package raised an error, so that its message is meant for users."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__", "").partition(".")[0] in (
        *_PACKAGES,
        "__main__",
    )


def _full_disk(error: BaseException) -> str:
    file = getattr(error, "filename", None)
    if _SHARED_MEMORY.search(str(error)):
        return "the shared memory (/dev/shm) is full: lower data.num_workers, or give it more space"
    place = f"{os.path.dirname(os.path.abspath(os.fsdecode(file)))}: " if isinstance(file, str | bytes) else ""
    return f"{place}the disk is full: free space there, or choose another folder"


def _no_memory(error: BaseException) -> str:
    text = str(error)
    wanted = re.search(r"allocate ([\d.]+ ?\w*)", text)
    size = f" (for {wanted[1]}{'' if re.search('[A-Za-z]', wanted[1]) else ' bytes'} more)" if wanted else ""
    return (
        f"not enough memory{' on the GPU' if 'CUDA' in text else ''}{size}: use smaller batches (optim.batch_size in "
        "recipes, where optim.gradient_accumulation keeps the effective batch; else --batch-size), fewer "
        "data.num_workers, or end other programs"
    )


def _dead_worker(how: str) -> str:
    return (
        f"a process that reads data ended ({how.lower()}), perhaps for lack of memory: lower data.num_workers; with "
        "data.num_workers=0 the error itself is shown. A run resumes from its last checkpoint by the same command"
    )


__all__ = [
    "BAD_INPUT",
    "FAILED",
    "TRACEBACK",
    "Terminated",
    "cause",
    "command",
    "disk_is_full",
    "error_number",
    "guard",
    "machine_failure",
    "one_line",
    "outcome",
    "own_process",
    "raised_by_package",
    "report",
    "report_and_exit",
    "run_module",
    "stop_at_once",
]
