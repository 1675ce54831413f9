"""Classify media files with a saved model.

deepavfusion classify --model runs/recognition clip.mp4
deepavfusion classify --model ORG/NAME --num-clips 10 --top-k 3 --json *.mp4 > labels.jsonl
"""

import argparse
import sys

from deepavfusion_cli.boundary import command
from deepavfusion_cli.parser import positive
from deepavfusion_cli.terminal import say, say_json

from .common import command_parser, load_pipeline, run


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    result = command_parser(
        "classify",
        "Print the most likely labels of media files, including files with video or audio only.",
        "The logits of several timestamps are averaged.",
        writes=False,
    )
    result.add_argument("--top-k", type=positive, default=5, help="number of labels to print (5)")
    result.add_argument(
        "--json", action="store_true", help="print one JSON object per file and line, with the timestamps in seconds"
    )
    return result


@command("deepavfusion classify")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    options = {} if arguments.num_clips is None else {"num_clips": arguments.num_clips}
    if arguments.at is not None:
        options = {"timestamps": arguments.at}

    def classify(pipeline, file: str, _: str) -> None:
        found = pipeline(
            file, top_k=arguments.top_k, batch_size=arguments.batch_size, return_timestamps=True, **options
        )
        if arguments.json:
            say_json({"file": file, **found})
            return
        say(file)
        for entry in found["labels"]:
            say(f"  {entry['score']:.3f}  {entry['label']}")

    return run(
        "classify",
        arguments,
        lambda: load_pipeline("audio-visual-classification", arguments.model, arguments.device, fit=arguments.fit),
        classify,
    )


if __name__ == "__main__":
    sys.exit(main())
