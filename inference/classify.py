"""Says what is seen and heard in media files, with a saved classifier.

deepavfusion classify --model runs/recognition clip.mp4
deepavfusion classify --model ORG/NAME --num-clips 10 --top-k 3 --json *.mp4 > labels.jsonl
"""

import argparse
import json
import sys

from .common import command_parser, load_pipeline, positive, run


def parser() -> argparse.ArgumentParser:
    result = command_parser(
        "classify",
        "Print the likeliest labels of media files; one with pictures or sound alone will do.",
        "With several moments the model's logits are averaged.",
        writes=False,
    )
    result.add_argument("--top-k", type=positive, default=5, help="labels to print (5)")
    result.add_argument("--json", action="store_true", help="print a JSON object on a line for each file")
    return result


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 with a message where a file or the model cannot be read."""
    arguments = parser().parse_args(argv)
    moments = {} if arguments.num_clips is None else {"num_clips": arguments.num_clips}
    if arguments.at is not None:
        moments = {"timestamps": arguments.at}

    def classify(pipeline, file: str, _: str) -> None:
        labels = pipeline(file, top_k=arguments.top_k, batch_size=arguments.batch_size, **moments)
        if arguments.json:
            print(json.dumps({"file": file, "labels": labels}, ensure_ascii=False), flush=True)
            return
        print(file)
        for entry in labels:
            print(f"  {entry['score']:.3f}  {entry['label']}", flush=True)

    return run(
        "classify",
        arguments,
        lambda: load_pipeline("audio-visual-classification", arguments.model, arguments.device),
        classify,
    )


if __name__ == "__main__":
    sys.exit(main())
