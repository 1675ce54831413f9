"""Write built-in scenes as files, or a sheet of examples: `python -m deepavfusion.training.data.scenes --help`."""

from pathlib import Path

from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser
from deepavfusion_cli.paths import check_output_file, check_writable
from deepavfusion_cli.terminal import say

from .config import DIFFICULTIES, SPLIT_INDICES, SPLIT_OFFSETS, ScenesConfig
from .export import write_scene, write_sheet
from .generation import check_things

SHEET = (69, 77, 376, 2052)  # training scenes that together contain every timbre


def main(arguments: list[str] | None = None) -> None:
    """Write scenes as files, or a sheet of examples."""
    parser = CommandParser(prog="python -m deepavfusion.training.data.scenes", description=main.__doc__)
    parser.add_argument("--index", type=int, nargs="+", default=list(SHEET), help="indices of the scenes")
    parser.add_argument("--split", choices=sorted(SPLIT_OFFSETS), default="train", help="split of the indices (train)")
    parser.add_argument("--out", type=Path, help="folder for mp4, wav and png files")
    parser.add_argument("--sheet", type=Path, help="file for a figure of several scenes")
    parser.add_argument("--things", type=Path, help="folder of cut-outs with sounds, instead of shapes and timbres")
    parser.add_argument("--difficulty", choices=DIFFICULTIES, default="standard", help="how far scenes vary (standard)")
    parser.add_argument("--max-objects", type=int, default=4, help="most visible objects, at most 4 (4)")
    parser.add_argument("--max-sounding", type=int, default=2, help="most objects that sound at once, at most 3 (2)")
    parser.add_argument(
        "--coupling",
        type=float,
        default=0.0,
        help="how closely sounds follow size, place and color, from 0, not at all, to below 1 (0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes; others give other scenes (0)")
    parser.add_argument("--image-size", type=int, default=224, help="height and width in pixels, at least 32 (224)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the audio, at least 0.75 s (3)")
    parser.add_argument("--still", action="store_true", help="objects of the mp4 do not move")
    parser.add_argument("--overwrite", action="store_true", help="replace existing scenes and figures")
    options = parser.parse_args(arguments)
    if options.out is None and options.sheet is None:
        parser.error("nothing to do: give --out DIR or --sheet FILE")
    if options.out is not None:
        check_writable(options.out, "--out")
    if options.sheet is not None:
        check_output_file(options.sheet, "--sheet")
    if options.sheet is not None and options.sheet.exists() and not options.overwrite:
        parser.error(f"{options.sheet} exists: choose another file, or pass --overwrite to replace it")
    try:
        config = ScenesConfig(
            image_size=options.image_size,
            seconds=options.seconds,
            difficulty=options.difficulty,
            max_objects=options.max_objects,
            max_sounding=options.max_sounding,
            coupling=options.coupling,
            things=options.things,
            seed=options.seed,
        )
        check_things(config)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        SPLIT_INDICES.check("--index", options.index)
    except ValueError as error:
        parser.error(str(error))
    indices = [SPLIT_OFFSETS[options.split] + i for i in options.index]
    if options.out is not None:
        folders = [options.out] if len(indices) == 1 else [options.out / str(i) for i in options.index]
        for folder in folders:
            if (folder / "scene.json").is_file():
                if not options.overwrite:
                    parser.error(f"{folder} holds a scene: choose another folder, or pass --overwrite to replace it")
            elif folder.exists() and (folder.is_file() or any(folder.iterdir())):
                parser.error(f"{folder} exists and is not a scene: choose another folder")
        for folder, index in zip(folders, indices):
            for path in write_scene(config, index, folder, motion=not options.still):
                say(str(path))
    if options.sheet is not None:
        write_sheet(config, indices, options.sheet)
        say(str(options.sheet))


if __name__ == "__main__":
    run_module(main)
