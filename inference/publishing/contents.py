"""What of a model's folder is published: the model, its code, its card and results; the rest is named and left out."""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from deepavfusion_cli.paths import EVALUATION_FILE

from ..files import size_text
from ..folder import MARK_FILE, files_below
from ..jobs.inputs import AUDIO_SUFFIXES, VIDEO_SUFFIXES

CARD, REPORT = "README.md", "report.html"
# Files of the folder itself, unless a pattern names a subfolder; "*" also matches "/".
_MODEL = (
    "config.json",
    "model.safetensors",
    "model-?????-of-?????.safetensors",
    "model.safetensors.index.json",
    "processor_config.json",
    "preprocessor_config.json",
    "modules.json",  # of sentence-transformers, as the next three
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "[0-9]_*/*",
    "*.onnx",
    "*.onnx.data",  # weights beside a file that would be too large with them
)
_CODE = ("*_deepavfusion.py",)
_RESULTS = (
    EVALUATION_FILE,
    "predictions/*.parquet",
    "nearest_neighbours.json",
    ".eval_results/*.yaml",
    "metrics.jsonl",
    "training_clips.parquet",  # digests, which say no names
    REPORT,
    "trainer_state.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "test_results.json",
)
_TEXTS = (CARD, "LICENSE*", "NOTICE*", ".gitattributes")
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg")
PUBLISHED = (*_MODEL, *_CODE, *_RESULTS, *_TEXTS)
# Why other files are left out; the first that matches.
_LEFT_OUT = {
    "checkpoints of the training": ("checkpoints/*", "checkpoint-*/*"),
    "state of the training": (
        "optimizer*",
        "scheduler*",
        "rng_state*",
        "scaler*",
        "training_args.bin",
        "global_step*/*",
    ),
    "weights in another format": ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.safetensors", "*.h5", "*.msgpack"),
    "logs": ("*.log", "*tensorboard/*", "*wandb/*", "*runs/*", "*events.out.tfevents*"),
    "caches": ("*__pycache__/*", ".cache/*", ".git/*", "*.lock", ".draft/*"),
    "media": tuple(f"*{suffix}" for suffix in (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES, *_IMAGES)),
    "recipe with local paths (the card shows it without)": ("recipe.yaml",),
}
_OTHERS = "others"
_MARKDOWN_LINK = re.compile(r"!?\[[^\]\n]*\]\(<?([^)\s>]+)>?[^)\n]*\)")
_HTML_LINK = re.compile(r"""\b(?:src|href|poster)\s*=\s*["']([^"'\n]+)["']""")
_FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//|#|/")


@dataclass
class Contents:
    """Files of a folder, as paths relative to it.

    Attributes:
        folder: The folder.
        published: Files that are uploaded -> size in bytes.
        left_out: Reason -> files that are not.
        missing: Files that the card or the report refers to, but which are not there.
    """

    folder: Path
    published: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What is uploaded, with sizes, and what is left out, for the terminal."""
        sizes = {name: size_text(size) for name, size in self.published.items()}
        code = [name for name in sizes if _matches(name, _CODE)]
        width = max(map(len, [*sizes.values(), size_text(sum(self.published.values()))]))
        lines = [f"  {size:>{width}}  {name}" for name, size in sizes.items() if name not in code]
        if code:
            total = size_text(sum(self.published[name] for name in code))
            lines.append(f"  {total:>{width}}  {len(code)} files of code, *_deepavfusion.py")
        total = size_text(sum(self.published.values()))
        lines.append(f"  {total:>{width}}  in {len(sizes)} files")
        if self.left_out:
            lines.append("left out (--include GLOB adds files):")
        reasons: dict[str, list[str]] = {}  # of each place: a file of the folder itself, or a folder in it
        for reason, names in self.left_out.items():
            for place in dict.fromkeys(map(_place, names)):
                reasons.setdefault(place, []).append(reason)
        grouped: dict[str, list[str]] = {}
        for place, found in reasons.items():
            grouped.setdefault(", ".join(found), []).append(place)
        names = [name for part in self.left_out.values() for name in part]
        for found, places in grouped.items():
            shown = ", ".join(places[:_SHOWN])
            shown += f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
            own = [name for name in names if _place(name) in places]
            size = size_text(sum((self.folder / name).lstat().st_size for name in own))
            lines.append(f"  {found}: {shown} ({len(own)} file{'s' * (len(own) > 1)}, {size})")
        return lines


def _place(name: str) -> str:
    """A file of the folder itself; of files further down, the folder that they are in, with a slash."""
    return re.sub("/.*", "/", name)


_SHOWN = 3  # files and folders that are left out, for each reason


def find_contents(folder: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Contents:
    """Decide what of a folder is published.

    Args:
        folder: Folder of a model.
        include: Patterns of further files, as of `hf upload`; ending in "/", of all files in a folder.
        exclude: Patterns of files that are left out in any case.
    """
    names = [name for name in files_below(folder) if not _internal(name)]
    referred = referred_files(folder)
    contents = Contents(folder, missing=sorted(name for name in referred if not (folder / name).exists()))
    for name in names:
        wanted = name in referred or _matches(name, PUBLISHED) or _matches(name, include)
        if wanted and (folder / name).is_file() and not _matches(name, exclude):
            contents.published[name] = (folder / name).stat().st_size
        else:
            broken = not (folder / name).is_file()
            reason = "links to nothing" if broken else "--exclude" if wanted else _reason(name)
            contents.left_out.setdefault(reason, []).append(name)
    return contents


def shows_clips(report: Path) -> bool:
    """Whether a report shows clips of the evaluation: their audio, and with it their frames, is in the page."""
    return "data:audio/" in report.read_text(encoding="utf-8", errors="replace")


def referred_files(folder: Path) -> set[str]:
    """Files that the card shows or links, and those that pages among them do, as paths relative to the folder."""
    found: set[str] = set()
    waiting = [CARD, REPORT]
    while waiting:
        name = waiting.pop()
        if not (folder / name).is_file():
            continue
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        links = _HTML_LINK.findall(text)
        if name.endswith(".md"):
            links += _MARKDOWN_LINK.findall(_FENCE.sub("", text))
        new = set(_local(links, Path(name).parent)) - found
        found |= new
        waiting += [link for link in new if link.endswith((".md", ".html"))]
    return found


def _local(links: Iterable[str], parent: Path) -> Iterable[str]:
    for link in links:
        path = unquote(re.split(r"[?#]", link, maxsplit=1)[0])
        if path and not _ADDRESS.match(link) and ".." not in Path(path).parts:
            yield (parent / path).as_posix()


def _internal(name: str) -> bool:
    """Whether a file is the package's own mark of the folder, which is left out without a word."""
    return name in (".lock", ".gitignore", MARK_FILE)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    for pattern in patterns:
        pattern = f"{pattern}*" if pattern.endswith("/") else pattern
        # Patterns without a folder are of files in the folder itself, except those that start with "*", as "*.log".
        if ("/" in pattern or "/" not in name or pattern.startswith("*.")) and fnmatch.fnmatchcase(name, pattern):
            return True
    return False


def _reason(name: str) -> str:
    return next((reason for reason, patterns in _LEFT_OUT.items() if _matches(name, patterns)), _OTHERS)


__all__ = ["CARD", "PUBLISHED", "REPORT", "Contents", "find_contents", "referred_files", "shows_clips"]
