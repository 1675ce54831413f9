"""Classify media files with a saved model.

deepavfusion classify --model runs/recognition clip.mp4
deepavfusion classify --model runs/recognition videos/ --out labels   # a JSON file each, and a page of all
deepavfusion classify --model ORG/NAME --num-clips 10 --top-k 3 --json *.mp4 > labels.jsonl
"""

import sys

from deepavfusion_cli.boundary import command
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say, say_json

from .common import load_pipeline, run
from .files import check_absent, write_files
from .jobs.records import make_record, model_identity, say_written
from .jobs.works import determining, is_complete, read_record, record_of


@command("deepavfusion classify")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parse("classify", argv)
    options = {} if arguments.num_clips is None else {"num_clips": arguments.num_clips}
    if arguments.at is not None:
        options = {"timestamps": arguments.at}

    def classify(pipeline, file: str, name: str) -> None:
        settings = {"top_k": arguments.top_k, "batch_size": arguments.batch_size, **options}
        record, about, found, written = None, {}, None, []
        if arguments.out is not None:
            record = record_of(arguments.out, name, "classify")
            about = determining("classify", arguments, file, model_identity(pipeline, arguments.model))
            if not arguments.overwrite and is_complete(record, about):
                stored = read_record(record)
                found = {key: stored[key] for key in ("labels", "timestamps") if key in stored}
            else:
                check_absent([record], arguments.overwrite)
        if found is None:
            found = pipeline(file, return_timestamps=True, **settings)
            if record is not None:
                write_files({record: make_record("classify", file, arguments.model, about, [], found)}, overwrite=True)
                written = [record]
        if arguments.json:
            say_json({"file": file, **found})
            return
        say(file)
        for entry in found["labels"]:
            say(f"  {entry['score']:.3f}  {entry['label']}")
        say_written(written)

    return run(
        "classify",
        arguments,
        lambda: load_pipeline("audio-visual-classification", arguments.model, arguments.device, fit=arguments.fit),
        classify,
    )


if __name__ == "__main__":
    sys.exit(main())
