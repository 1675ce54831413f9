"""Classify media files with a saved model.

deepavfusion classify --model runs/recognition clip.mp4
deepavfusion classify --model ORG/NAME --num-clips 10 --top-k 3 --json *.mp4 > labels.jsonl
"""

import sys

from deepavfusion_cli.boundary import command
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say, say_json

from .common import load_pipeline, run


@command("deepavfusion classify")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parse("classify", argv)
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
