"""Samples per second that a core reads: from video files as they are, and from what was prepared of them.

    python -m deepavfusion.training.experiments.benchmark_data VIDEOS
    python -m deepavfusion.training.experiments.benchmark_data VIDEOS --only windows
    python -m deepavfusion.training.experiments.benchmark_data VIDEOS --only reduction
    python -m deepavfusion.training.experiments.benchmark_data VIDEOS --only spectrograms --repeats 50

A folder is prepared in a temporary folder in each way. Samples of training (a random window and frame, augmentation,
log-mel) are read in one process with one thread, from all of them in turns of a second; CPU seconds are compared, which
other programs on the machine disturb less than wall time. Beside them are what decoding alone takes with PyAV, the
steps of a sample, and memory over many samples. Results are written to --results, and a table of them to --page.

`--only windows` compares windows of a clip that are decoded together with those that are decoded one by one,
`--only reduction` crops of JPEG files decoded at half their size with those of whole ones, `--only spectrograms`
log-mel spectrograms of one window with those of a batch. Of these, only the results are written.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch

from deepavfusion.inference.files import write_atomically
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser, positive

from ..grid import write_table
from .parts import measure_reduction, measure_spectrograms, measure_windows
from .throughput import measure, throughput_table

_RESULTS = Path("training/experiments/results")
_FILES = {
    None: "benchmark_data_cpu.json",
    "windows": "clip_windows_cpu.json",
    "reduction": "reduced_frames_cpu.json",
    "spectrograms": "spectrogram_batches_cpu.json",
}
_SIZES = (48, 64, 80, 96, 112, 128, 224)  # of models, in pixels


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = CommandParser(
        "python -m deepavfusion.training.experiments.benchmark_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("videos", metavar="VIDEOS", help="folder of videos")
    parser.add_argument("--size", type=positive, default=224, help="height and width of the frames in pixels (224)")
    parser.add_argument("--repeats", type=positive, default=5, help="turns of each (5)")
    parser.add_argument("--samples", type=positive, default=20_000, help="over which memory is measured (20,000)")
    parser.add_argument("--only", choices=[name for name in _FILES if name], help="measure this alone")
    parser.add_argument("--results", type=Path, help=f"JSON file to write (in {_RESULTS}, by what is measured)")
    parser.add_argument(
        "--page", type=Path, default=Path("docs/results.md"), help="page whose table is replaced (docs/results.md)"
    )
    given = parser.parse_args(argv)
    given.results = given.results or _RESULTS / _FILES[given.only]
    torch.set_num_threads(1)
    measures = {
        "windows": partial(measure_windows, given.videos, 10, given.repeats),
        "reduction": partial(measure_reduction, given.videos, _SIZES, given.repeats),
        "spectrograms": partial(measure_spectrograms, given.videos, given.repeats),
        None: partial(measure, given.videos, given.size, given.repeats, given.samples),
    }
    results = measures[given.only]()
    if given.only is None:
        write_table(given, results, "data", throughput_table(results))
        return 0
    given.results.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1)
    write_atomically(given.results, text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    run_module(main)
