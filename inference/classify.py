"""Classify media files with a saved model.

deepavfusion classify --model runs/recognition clip.mp4
deepavfusion classify --model ORG/NAME --num-clips 10 --top-k 3 --json *.mp4 > labels.jsonl
"""

import argparse
import json
import sys

from .common import command_parser, load_pipeline, positive, run
from .jobs.progress import say


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


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, or 2 with a message if a file or the model cannot be read."""
    arguments = parser().parse_args(argv)
    options = {} if arguments.num_clips is None else {"num_clips": arguments.num_clips}
    if arguments.at is not None:
        options = {"timestamps": arguments.at}

    def classify(pipeline, file: str, _: str) -> None:
        found = pipeline(
            file, top_k=arguments.top_k, batch_size=arguments.batch_size, return_timestamps=True, **options
        )
        if arguments.json:
            say(json.dumps({"file": file, **found}, ensure_ascii=False))
            return
        say("\n".join([file, *(f"  {entry['score']:.3f}  {entry['label']}" for entry in found["labels"])]))

    return run(
        "classify",
        arguments,
        lambda: load_pipeline("audio-visual-classification", arguments.model, arguments.device),
        classify,
    )


if __name__ == "__main__":
    sys.exit(main())
