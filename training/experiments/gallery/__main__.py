"""Write the gallery of the documentation: cases of each task, chosen by rule, to be seen and heard.

    python -m deepavfusion.training.experiments.gallery
    python -m deepavfusion.training.experiments.gallery --things runs/things_recognition --out runs/gallery

The cases are those of completed runs in --runs, of the recipes that README names, at fixed percentiles of the scores in
their stored predictions. A run that is missing is named on the page. --strip writes an image of two scenes over time:
what sounds, and their sounds separated. --things adds evaluations of runs with data.things.
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
_THINGS = """
Scenes of things, made of cut-outs and their own sounds ([how](../data.md#scenes-of-things)), are not shown here: images
and sounds of the package that is named there are under the GPL, and the project does not ship them. With a folder
`THINGS` made as described, these commands write such a page with them:

```
deepavfusion finetune scenes_recognition data.things=THINGS run.output_dir=runs/things_recognition
deepavfusion finetune scenes_localization data.things=THINGS run.output_dir=runs/things_localization
python -m deepavfusion.training.experiments.gallery --out runs/gallery --things runs/things_*
```
""".strip()


def parser() -> CommandParser:
    """Build the parser of the command line."""
    result = CommandParser("python -m deepavfusion.training.experiments.gallery", description=__doc__.split("\n\n")[0])
    result.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (runs)")
    result.add_argument("--things", type=Path, nargs="+", default=[], help="folders of runs with data.things")
    result.add_argument("--out", type=Path, default=Path("docs/gallery"), help="folder of the page (docs/gallery)")
    result.add_argument("--strip", type=Path, help="WebP file of frames over time with what sounds and was separated")
    return result


def main(argv: list[str] | None = None) -> int:
    """Write the gallery; returns the exit code."""
    given = parser().parse_args(argv)
    gallery = Gallery(given.out)
    sources = {name: load_source(given.runs / name) for name in RUNS if _is_evaluated(given.runs / name)}
    things = [load_source(folder) for folder in given.things]
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
    missing = [f"- `{command}`" for name, command in RUNS.items() if name not in sources]
    if missing:
        gallery.add_text("Not shown, because there is no completed run of", "\n".join(missing))
    gallery.add_text("## Things")
    for source in things:
        gallery.add(f"things-{source.kind}", source)
    if not things:
        gallery.add_text(_THINGS)
    page, size = gallery.write()
    say(f"{page} ({size / 1e6:.1f} MB with its images and audio)")
    if given.strip is not None:
        _write_strip(given.strip, sources)
    return 0


def _section(name: str) -> str:
    """Name of the section of a folder of `RUNS`; of an evaluation, that of its recipe."""
    return Path(name).name.partition("-")[0].replace("_", "-")


def _is_evaluated(folder: Path) -> bool:
    return (folder / EVALUATION_FILE).is_file()


def _write_strip(path: Path, sources: dict[str, Source]) -> None:
    needed = ("scenes_separation", "scenes_localization")
    missing = [RUNS[name] for name in needed if name not in sources]
    if missing:
        say(f"{path} is left as it is, because there are no completed runs of: {', '.join(missing)}", stream=sys.stderr)
        return
    write_atomically(path, webp(figure_png(draw_strip(*(sources[name] for name in needed))), quality=80))
    say(str(path))


if __name__ == "__main__":
    run_module(main)
