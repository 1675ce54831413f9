"""Errors as exit codes and messages: one line on what was wrong and what to do."""

import errno
import os
import re
from collections.abc import Iterator, Sequence

FAILED, BAD_INPUT = 1, 2
TRACEBACK = "--traceback"
# Types of options and of fields, in words.
EXPECTED = {
    "NoneType": "null",
    "None": "null",
    "bool": "true or false",
    "dict": "an object",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "list of dict": "a list of objects",
    "list of float": "a list of numbers",
    "list of int": "a list of whole numbers",
    "list of str": "a list of words",
    "str": "text",
}
# How libraries say that a value is of another type.
_FIELD = re.compile(r".*: Field '(\w+)' expected (.+), got \w+ \(value: (.*)\)")
_UNION = re.compile(r".*: Field '(\w+)' with value (.*) doesn't match any type in \((.*?)\).*")
_KIND = re.compile(r"<class '(\w+)'>|(list)\[(\w+)\]")
_VALIDATOR = re.compile(r"(?:\w+: )?Class validation error for validator '\w+': \w+: ")
_NO_NUMBER = re.compile(r"invalid literal for int\(\) with base \d+: ('.*')|could not convert string to float: ('.*')")
_PACKAGES = ("deepavfusion", "deepavfusion_cli")


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What another argument corrects; other numbers are failures of the machine.
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
RUN_ADVICE = (
    "lower data.num_workers; with data.num_workers=0 the error itself is shown. A run resumes from its last checkpoint "
    "by the same command"
)
DATA_ADVICE = "lower --num-workers; with --num-workers 0 the error itself is shown"
_SHARED_MEMORY = re.compile(r"shared memory|/torch_\d|/dev/shm|insufficient shm")
_RAISED = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Warning): ", re.MULTILINE)


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
            full = [found for found in _causes(link) if disk_is_full(found)]
            return _full_disk(next((found for found in full if getattr(found, "filename", None)), link))
        if isinstance(link, MemoryError) or (isinstance(link, RuntimeError | OSError) and _NO_MEMORY.search(str(link))):
            return _no_memory(link)
        if isinstance(link, RuntimeError) and (message := dead_worker(link)):
            return message
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
        text = "it is damaged, or holds Python objects other than tensors, which may run code when they are read"
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
    text = _in_words(text)
    names = [os.fspath(name) for name in named]
    file = getattr(error, "filename", None)
    if number is not None and isinstance(file, str | bytes) and os.fsdecode(file) not in names:
        text = f"{os.fsdecode(file)}: {text}"
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"(?<![\w/.=-])(['\"]?){re.escape(name)}\1(?![\w/-])", "it", text)
    return text


def _in_words(text: str) -> str:
    """What libraries say of values of another type, without the names of their classes and types."""
    if found := _FIELD.fullmatch(text):
        kinds = [EXPECTED.get(kind, kind) for kind in re.split(r" \| | or ", found[2])]
        return f"{found[1]} is {found[3]}: expected {' or '.join(kinds)}"
    if found := _UNION.fullmatch(text):
        kinds = [kind or f"{several} of {entry}" for kind, several, entry in _KIND.findall(found[3])]
        return f"{found[1]} is {found[2]}: expected {' or '.join(EXPECTED.get(kind, kind) for kind in kinds)}"
    if found := _NO_NUMBER.fullmatch(text):
        return f"{found[1]} is no whole number" if found[1] else f"{found[2]} is no number"
    return _VALIDATOR.sub("", text, count=1)


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


def dead_worker(error: BaseException, clips: Sequence[str] = (), advice: str = RUN_ADVICE) -> str | None:
    """Message of an error of torch that a process which reads data ended; None for all others.

    Args:
        error: The error.
        clips: Names of the clips that the process held.
        advice: What to do.
    """
    found = _DEAD_WORKER.search(str(error))
    return None if found is None else ended_process(found[1], clips, advice)


def ended_process(how: str, held: Sequence[str], advice: str, kind: str = "clip") -> str:
    """Message that a process which reads data ended.

    Args:
        how: How it ended.
        held: Names of what it held.
        advice: What to do.
        kind: What the names are of, in the singular.
    """
    names = f" {held[0]}" if len(held) == 1 else "".join(f"\n  {name}" for name in held)
    what = f". The {kind}{'s' * (len(held) > 1)} that it held:{names}" if held else ""
    how = " ".join(how.split()).lower()
    return f"a process that reads data ended ({how}), perhaps for lack of memory: {advice}{what}"


__all__ = [
    "BAD_INPUT",
    "DATA_ADVICE",
    "EXPECTED",
    "FAILED",
    "RUN_ADVICE",
    "TRACEBACK",
    "cause",
    "dead_worker",
    "disk_is_full",
    "ended_process",
    "error_number",
    "machine_failure",
    "one_line",
    "outcome",
    "raised_by_package",
]
