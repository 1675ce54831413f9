"""Execute the notebooks and keep their outputs: `make notebooks`.

    python notebooks/build.py                 # all
    python notebooks/build.py 04 06           # those whose names begin so
    python notebooks/build.py --heads         # only the install lines and links at the top, without executing

The models are those in `runs/`, or in the folder that the environment variable DEEPAVFUSION_RUNS names. What differs
between two executions with the same models, such as durations, is left out, and images and sounds are compressed.

Exit codes: 0 success; 1 for a notebook that fails or whose outputs cannot be kept; 2 for missing models.
"""

import argparse
import base64
import copy
import io
import os
import re
import sys
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path

import nbformat
import numpy as np
import yaml
from matplotlib import font_manager  # noqa: F401  (builds its cache, which a kernel would report)
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.films.encoding import compressed_audio
from deepavfusion.inference.media import data_uri
from deepavfusion_cli.paths import missing_model

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
MAX_BYTES = 400_000  # of a notebook
# What trains the models that notebooks name.
MODELS = {
    "quickstart": "deepavfusion pretrain scenes_tiny_long run.output_dir=runs/quickstart",
    "scenes_separation": "deepavfusion finetune scenes_separation",
    "scenes_localization": "deepavfusion finetune scenes_localization",
    "scenes_segmentation": "deepavfusion finetune scenes_segmentation",
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
COLAB = "https://colab.research.google.com"
_LINK = "[Open in Colab]"
_AUDIO_BITS = 32_000  # a second
_COLORS = 256  # of an image: charts look the same at a third of the size
_QUALITY = 85  # of JPEG
_WAV = re.compile(r"data:audio/wav;base64,([A-Za-z0-9+/=]+)\"( type=\")audio/wav")
# The bar of transformers' Trainer, with its duration; the table of losses below it is kept.
_BAR = re.compile(r"\s*<div>\s*<progress.*?</div>\s*", re.DOTALL)
# Of what Trainer prints.
_TIMING = re.compile(r"'\w+_(?:runtime|per_second|preparation_time)': '[^']*'(?:, )?")
_PROGRESS = re.compile(r"\d+%\|.*\|")
_OVERWRITTEN = re.compile(r"[^\n]*\r|\x1b\[[0-9;]*[A-Za-z]")  # of lines on a terminal, and its colors
_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
_PATH = re.compile(r"(?<![\w./:~-])/(?:home|root|tmp|usr|var|opt|mnt|work|workspace|content|Users|private)/[\w./-]+")


class NotebookError(RuntimeError):
    """Raised for a notebook that fails, or whose outputs cannot be kept; the message names it and the reason."""


def repository() -> str | None:
    """Address of the repository that CITATION.cff states, without a slash at its end; None if it states none."""
    stated = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8")).get("repository-code")
    return stated.rstrip("/").removesuffix(".git") if stated else None


def head(name: str, address: str | None) -> tuple[str, str]:
    """Link to a hosted notebook service, and the line that installs the package.

    Args:
        name: File name of a notebook.
        address: Of the repository, as `repository` returns it. Without one, the package is installed from the clone
            that the notebook is in, and the link leads to where a notebook can be uploaded.
    """
    on_github = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", address or "")
    if on_github:
        link = f"{_LINK}({COLAB}/github/{on_github[1]}/blob/main/notebooks/{name})"
    else:
        link = f"{_LINK}({COLAB}/): upload this file there, and let the next line name the place of the package."
    source = f"deepavfusion[train] @ git+{address}" if address else "..[train]"
    return link, f'%pip install --quiet {"" if address else "--editable "}"{source}"'


def put_head(notebook: nbformat.NotebookNode, name: str, address: str | None) -> None:
    """Put link and install line at the top of a notebook, in place of those that are there; see `head`."""
    link, install = head(name, address)
    title, *body = [line for line in notebook.cells[0].source.split("\n") if not line.startswith(_LINK)]
    notebook.cells[0].source = f"{title}\n\n{link}\n\n" + "\n".join(body).strip("\n")
    notebook.cells[1].source = install


def is_install(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell installs the package, which is not executed here."""
    return cell.cell_type == "code" and cell.source.startswith("%pip install")


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def needed_models(notebook: nbformat.NotebookNode) -> list[str]:
    """Names of the `MODELS` that the code of a notebook names."""
    source = "\n".join(cell.source for cell in code_cells(notebook))
    return [name for name in MODELS if name in source]


def missing_models(paths: Sequence[Path], runs: Path) -> str | None:
    """A line that names the models which notebooks need and `runs` lacks, and what trains them; None if it has all."""
    needed = {name for path in paths for name in needed_models(nbformat.read(path, as_version=4))}
    lacking = [f"{name} (`{MODELS[name]}`)" for name in MODELS if name in needed and missing_model(str(runs / name))]
    return f"{runs} lacks models that the notebooks show: {', '.join(lacking)}" if lacking else None


def execute(notebook: nbformat.NotebookNode, environment: dict[str, str], **options) -> nbformat.NotebookNode:
    """A notebook with the outputs of executing it in its folder, as they come.

    Args:
        notebook: The notebook, which stays as it is.
        environment: Environment variables of its kernel.
        **options: Of `NotebookClient`.

    Raises:
        CellExecutionError: If a cell fails.
    """
    executed = copy.deepcopy(notebook)
    for cell in code_cells(executed):
        cell.execution_count, cell.outputs = None, []
        cell.source = "pass" if is_install(cell) else cell.source
    options = {"timeout": 1800, "kernel_name": "python3", "record_timing": False} | options
    client = NotebookClient(executed, resources={"metadata": {"path": str(FOLDER)}}, **options)
    client.execute(env=environment)
    for cell, original in zip(executed.cells, notebook.cells, strict=True):
        cell.source = original.source
    return executed


def clean(notebook: nbformat.NotebookNode, places: dict[str, str]) -> None:
    """Leave out of a notebook what differs between executions, and compress its images and sounds, in place.

    Args:
        notebook: An executed notebook.
        places: Text that names places of this machine, and what replaces it.
    """
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = _merged(output for output in cell.outputs if _cleaned(output, places))


def _cleaned(output: nbformat.NotebookNode, places: dict[str, str]) -> bool:
    """Clean an output in place; returns whether anything remains."""
    if output.output_type == "stream":
        output.text = _anonymous(_OVERWRITTEN.sub("", output.text.replace("\r\n", "\n")), places)
        output.text = _TIMING.sub("", output.text)
        if output.name == "stderr":
            output.text = "".join(line for line in output.text.splitlines(True) if not _PROGRESS.search(line))
        return bool(output.text.strip())
    if output.output_type == "error":
        return True
    output.metadata = nbformat.from_dict({})
    data = output.data
    for kind in [kind for kind in data if kind not in ("text/plain", "text/html", "image/png")]:
        del data[kind]
    if "image/png" in data:
        kind, content = compressed_image(data.pop("image/png"))
        data[kind] = content
    for kind in {"text/plain", "text/html"} & set(data):
        data[kind] = _ADDRESS.sub("", _anonymous(data[kind], places))
    if "text/html" in data:
        data["text/html"] = _WAV.sub(_compressed_wav, _BAR.sub("", data["text/html"]))
    return list(data) == ["text/plain"] or any(data[kind].strip() for kind in data if kind != "text/plain")


def _merged(outputs) -> list[nbformat.NotebookNode]:
    """Outputs of which those that follow each other on the same stream are one."""
    merged: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _anonymous(text: str, places: dict[str, str]) -> str:
    for place, replacement in places.items():
        text = text.replace(place, replacement)
    return text


def compressed_image(encoded: str) -> tuple[str, str]:
    """Media type and content of the smaller of two forms of a PNG: with few colors, or as JPEG. Contents are base64."""
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A") if "A" in image.getbands() else None)
    few, jpeg = io.BytesIO(), io.BytesIO()
    flat.quantize(_COLORS, dither=Image.Dither.NONE).save(few, format="png", optimize=True)
    flat.save(jpeg, format="jpeg", quality=_QUALITY, optimize=True)
    kind, file = min(("image/png", few), ("image/jpeg", jpeg), key=lambda form: len(form[1].getvalue()))
    return kind, base64.b64encode(file.getvalue()).decode("ascii")


def _compressed_wav(found: re.Match) -> str:
    """The source of an audio player of IPython, with its wav file as AAC."""
    with wave.open(io.BytesIO(base64.b64decode(found[1]))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32768
        content = compressed_audio(samples, file.getframerate(), bits=_AUDIO_BITS)
    return f'{data_uri(content, "audio/mp4")}"{found[2]}audio/mp4'


def kinds(cell: nbformat.NotebookNode) -> list[str]:
    """Kinds of a cell's outputs in their order: "text", "image", "audio", "table", "stderr" and "error"."""
    found = []
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "stream":
            found.append("text" if output.name == "stdout" else "stderr")
        elif output.output_type == "error":
            found.append("error")
        elif any(kind.startswith("image/") for kind in data):
            found.append("image")
        elif "text/html" in data:
            found.append("audio" if "<audio" in data["text/html"] else "table")
        else:
            found.append("text")
    return found


def faults(notebook: nbformat.NotebookNode, name: str) -> list[str]:
    """What is wrong with a notebook that is to be committed, a line each.

    Args:
        notebook: The notebook, with its outputs.
        name: Its file name.
    """
    found = []
    headed = copy.deepcopy(notebook)
    put_head(headed, name, repository())
    if not is_install(notebook.cells[1]) or headed != notebook:
        found.append("link and install line at its top are not those of `python notebooks/build.py --heads`")
    cells = code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("its code cells were not executed once each, in their order")
    for number, cell in enumerate(cells, start=1):
        for output, kind in zip(cell.outputs, kinds(cell), strict=True):
            if kind in ("error", "stderr"):
                text = output.get("text") or output.get("evalue", "")
                found.append(f"code cell {number} has an output of the kind {kind}: {text[:200]!r}")
    text = nbformat.writes(notebook)
    if paths := sorted(set(_PATH.findall(re.sub(r'"image/\w+": "[^"]*"|base64,[A-Za-z0-9+/=]*', "", text)))):
        found.append(f"it names places of a machine: {', '.join(paths[:5])}")
    if len(text.encode("utf-8")) >= MAX_BYTES:
        found.append(f"it has {len(text.encode('utf-8')):,} bytes: expected less than {MAX_BYTES:,}")
    return found


def build(path: Path, runs: Path) -> int:
    """Execute a notebook and replace it by one with its outputs; returns its size in bytes.

    Raises:
        NotebookError: If it fails, or has outputs that cannot be kept; the file stays as it was.
    """
    with tempfile.TemporaryDirectory() as home:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("DEEPAVFUSION_")}
        variables |= {
            "DEEPAVFUSION_RUNS": str(runs),
            "HF_HUB_OFFLINE": "1",
            "IPYTHONDIR": home,  # no settings of the user's
            "OMP_NUM_THREADS": "1",  # sums do not depend on the number of cores
            "PYTHONWARNINGS": "ignore:IProgress not found",  # progress bars are left out
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "TERM": "dumb",
            "TMPDIR": home,
        }
        notebook = nbformat.read(path, as_version=4)
        put_head(notebook, path.name, repository())
        try:
            executed = execute(notebook, variables)
        except CellExecutionError as error:
            raise NotebookError(f"{path.name}: {error}") from error
        clean(executed, {str(runs): "../runs", str(ROOT): ".."})
    if found := faults(executed, path.name):
        raise NotebookError(f"{path.name}: {'; '.join(found)}")
    text = nbformat.writes(executed) + "\n"
    write_atomically(path, text.encode("utf-8"))
    return len(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Execute the notebooks and keep their outputs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of file names (default: all notebooks)")
    parser.add_argument("--heads", action="store_true", help="only update links and install lines, without executing")
    args = parser.parse_args(arguments)
    paths = [path for path in NOTEBOOKS if path.name.startswith(tuple(args.names or [""]))]
    if not paths:
        parser.error(f"no notebook begins with {' or '.join(args.names)}: {', '.join(path.name for path in NOTEBOOKS)}")
    if args.heads:
        for path in paths:
            notebook = nbformat.read(path, as_version=4)
            put_head(notebook, path.name, repository())
            write_atomically(path, (nbformat.writes(notebook) + "\n").encode("utf-8"))
        return 0
    runs = Path(os.environ.get("DEEPAVFUSION_RUNS", ROOT / "runs")).resolve()
    if reason := missing_models(paths, runs):
        print(f"error: {reason}", file=sys.stderr)
        return 2
    for path in paths:
        print(f"{path.name}: executing", flush=True)
        try:
            print(f"{path.name}: {build(path, runs) / 1000:.0f} kB", flush=True)
        except NotebookError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
