"""Write the gallery of the documentation: cases of each task, chosen by rule, to be seen and heard.

    python -m deepavfusion.training.experiments.gallery
    python -m deepavfusion.training.experiments.gallery --things runs/things_recognition --out runs/gallery

The cases are those of completed runs in --runs, of the recipes that README names, at fixed percentiles of the scores in
their stored predictions, and of the same recipes with scenes of things. A run that is missing is named on the page.
--things shows runs with other data.things instead. --strip writes an image of two scenes over time, of things where
there are runs with them: what sounds, and their sounds separated.
"""

import sys
from pathlib import Path

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.media import webp
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser
from deepavfusion_cli.paths import EVALUATION_FILE
from deepavfusion_cli.terminal import say

from ...config.recipe import RecipeError
from ...report.style import figure_png
from .page import Gallery, rule
from .sources import Source, load_source
from .strip import draw_strip

# Folder in --runs -> command that makes it.
RUNS = {
    "quickstart": "make quickstart",
    "scenes_recognition": "deepavfusion finetune scenes_recognition",
    "scenes_localization": "deepavfusion finetune scenes_localization",
    "scenes_separation": "deepavfusion finetune scenes_separation",
    "scenes_segmentation": "deepavfusion finetune scenes_segmentation",
    "evaluations/scenes_retrieval-quickstart": "deepavfusion evaluate scenes_retrieval --model runs/quickstart",
}
# The same, with scenes of the things that docs/data.md names.
THINGS_RUNS = {
    f"things_{task}": f"deepavfusion finetune scenes_{task} data.things=runs/things "
    f"model.init_from=runs/scenes_tiny_long {options}run.output_dir=runs/things_{task}"
    for task, options in (
        ("recognition", ""),
        ("localization", "optim.epochs=2 "),
        ("separation", ""),
        ("segmentation", ""),
    )
}
_THINGS = (
    "Scenes of 23 cut-outs with sounds of their own ([how](../data.md#scenes-of-things)). The images are of the Open "
    "Clip Art Library, in the public domain, the sounds of Sonic Pi, under CC0."
)


def parser() -> CommandParser:
    """Build the parser of the command line."""
    result = CommandParser("python -m deepavfusion.training.experiments.gallery", description=__doc__.split("\n\n")[0])
    result.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (runs)")
    result.add_argument("--things", type=Path, nargs="+", help="folders of runs with data.things (RUNS/things_*)")
    result.add_argument("--out", type=Path, default=Path("docs/gallery"), help="folder of the page (docs/gallery)")
    result.add_argument("--strip", type=Path, help="WebP file of frames over time with what sounds and was separated")
    return result


def main(argv: list[str] | None = None) -> int:
    """Write the gallery; returns the exit code."""
    given = parser().parse_args(argv)
    gallery = Gallery(given.out)
    sources = {name: load_source(given.runs / name) for name in RUNS if _is_evaluated(given.runs / name)}
    folders = [given.runs / name for name in THINGS_RUNS if _is_evaluated(given.runs / name)]
    things = [load_source(folder) for folder in (given.things or folders)]
    for source in things:
        if source.recipe.data.things is None:
            raise RecipeError(f"{source.folder} was evaluated without data.things.")
    if not sources and not things:
        say(f"No completed run in {given.runs}; `{RUNS['quickstart']}` makes the first one.", stream=sys.stderr)
        return 2
    gallery.add_text("# Gallery", "What trained models answer for held-out clips, to be seen and heard.", rule())
    gallery.add_text("Rebuilt by `make gallery` from the runs in `runs/`.", "## Scenes")
    for name, source in sources.items():
        gallery.add(_section(name), source)
    _add_missing(gallery, [command for name, command in RUNS.items() if name not in sources])
    gallery.add_text("## Things")
    if not given.things:
        gallery.add_text(_THINGS)
    for source in things:
        gallery.add(f"things-{source.kind}", source)
    if not given.things:
        _add_missing(gallery, [command for name, command in THINGS_RUNS.items() if given.runs / name not in folders])
    page, size = gallery.write()
    say(f"{page} ({size / 1e6:.1f} MB with its images and audio)")
    if given.strip is not None:
        _write_strip(given.strip, things, [*sources.values()])
    return 0


def _add_missing(gallery: Gallery, commands: list[str]) -> None:
    if commands:
        listed = "\n".join(f"- `{command}`" for command in commands)
        gallery.add_text("Not shown, because there is no completed run of", listed)


def _section(name: str) -> str:
    """Name of the section of a folder of `RUNS`; of an evaluation, that of its recipe."""
    return Path(name).name.partition("-")[0].replace("_", "-")


def _is_evaluated(folder: Path) -> bool:
    return (folder / EVALUATION_FILE).is_file()


def _write_strip(path: Path, things: list[Source], scenes: list[Source]) -> None:
    """Write the strip, of things if there is what it needs."""
    for sources in (things, scenes):
        found = {source.kind: source for source in sources}
        if "separation" in found and "localization" in found:
            strip = draw_strip(found["separation"], found["localization"])
            write_atomically(path, webp(figure_png(strip), quality=80))
            say(str(path))
            return
    kinds = {source.kind for source in scenes}
    commands = ", ".join(RUNS[f"scenes_{kind}"] for kind in ("separation", "localization") if kind not in kinds)
    say(f"{path} is left as it is, because there are no completed runs of: {commands}", stream=sys.stderr)


if __name__ == "__main__":
    run_module(main)
