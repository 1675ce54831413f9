"""Boundary of all commands: whatever ends one becomes a line that says what was wrong, and an exit code.

0 success; 1 failed; 2 bad input; 130 after Ctrl-C (SIGINT); 143 after SIGTERM. A traceback is printed only on request,
by `--traceback`. Errors of this package have an `exit_code` and a message that names the file and says what to do; for
all others, `errors.outcome` does.
"""

import contextlib
import functools
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any, NoReturn

from .errors import FAILED, TRACEBACK, outcome
from .terminal import printable_messages, say

_STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


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
    with (
        _raising_stops() if stops else contextlib.nullcontext([]) as received,
        _showing(traceback),
        printable_messages(),
    ):
        try:
            try:
                code = action()
                return code if isinstance(code, int) else 0
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except (KeyboardInterrupt, Terminated) as error:
            return _stopped(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM, error)
        except Exception as error:
            lost = _silence_lost_outputs()
            if received:  # what libraries make of an exception in the midst of an import
                return _stopped(received[0], error)
            if lost and isinstance(error, BrokenPipeError):
                return FAILED  # as in `deepavfusion --help | head -1`: nobody reads on
            to_output = lost and isinstance(error, OSError) and error.filename is None
            return report(f"{name}: standard output" if to_output else name, error)


def _stopped(number: int, error: BaseException) -> int:
    _print_error(_STOPS[signal.Signals(number)], error)
    return 128 + number


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
def _showing(traceback: bool) -> Generator[None]:
    """Let `report` show tracebacks, also where a command inside another one did not ask for it again."""
    global _show_traceback
    before, _show_traceback = _show_traceback, _show_traceback or traceback
    try:
        yield
    finally:
        _show_traceback = before


@contextlib.contextmanager
def _raising_stops() -> Generator[list[int]]:
    """Let SIGINT and SIGTERM raise exceptions, unless they are ignored or handled by somebody else.

    Yields:
        The signals that were received.
    """
    received: list[int] = []

    def raise_stop(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    def send_again(lost: Any) -> None:
        """Repeat a signal whose exception went to a destructor, where Python drops it."""
        if lost.exc_type not in (KeyboardInterrupt, Terminated):
            report_lost(lost)
        elif received:
            again = threading.Timer(0.05, os.kill, (os.getpid(), received.pop()))
            again.daemon = True
            again.start()

    previous, report_lost = {}, sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        for number in _STOPS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, stop_at_once):
                previous[number] = signal.signal(number, raise_stop)
        sys.unraisablehook = send_again
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = report_lost


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
            from traceback import format_exception

            say("".join(format_exception(error)).rstrip("\n"), kept="\n", stream=sys.stderr)
        say(message, kept="\n\t", stream=sys.stderr)


__all__ = [
    "Terminated",
    "command",
    "guard",
    "own_process",
    "report",
    "report_and_exit",
    "run_module",
    "stop_at_once",
]
