"""Convert a published checkpoint to a folder that `from_pretrained` loads, and optionally push it to the Hub.

deepavfusion convert checkpoint_latest.pth converted/
deepavfusion convert checkpoint_latest.pth converted/ --push-to-hub ORG/NAME --license apache-2.0
deepavfusion convert checkpoint_latest.pth converted/ --task encoder --config other_folder
deepavfusion convert checkpoint_latest.pth converted/ --example clip.mp4
"""

import sys

import deepavfusion
from deepavfusion.card_deepavfusion import model_card
from deepavfusion.conversion_deepavfusion import UndeterminedError
from deepavfusion.processors import DeepAVFusionProcessor, load_clip
from deepavfusion.published_deepavfusion import CHECKPOINTS, SOURCE, checkpoint_name, results_table
from deepavfusion_cli.boundary import command
from deepavfusion_cli.early.marks import conversion_fingerprint
from deepavfusion_cli.errors import BAD_INPUT, cause, machine_failure
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say

from .common import reading_model
from .files import apply_umask, saving, write_atomically
from .folder import ResultFolder
from .jobs.progress import plain_output
from .publishing.example import write_clip_example
from .publishing.hub import Upload
from .publishing.latency import forward_time, latency_rows
from .publishing.push import publish
from .publishing.tables import markdown_table


def describe(config: deepavfusion.DeepAVFusionConfig) -> str:
    """Describe the sizes in one line, so that wrongly inferred ones are noticed."""
    layers = len(config.fusion_layer_indices)
    height, width = config.frame_size
    frames = f"{config.num_frames} frames of " if config.num_frames > 1 else ""
    tokens = (config.num_fusion_tokens, config.num_image_aggregation_tokens, config.num_audio_aggregation_tokens)
    return (
        f"{config.num_hidden_layers} layers of width {config.hidden_size} with {config.num_attention_heads} heads; "
        f"{config.fusion_type} fusion in {layers} layers, {' + '.join(map(str, tokens))} tokens; "
        f"{frames}{height} x {width} pixels, {config.num_mel_bins} mel bins x {config.spectrogram_length} steps"
    )


def _card(model, args, example: str) -> str:
    """Text of the model card, with what is published of a released checkpoint, and an example as Markdown."""
    name, released = args.output.resolve().name, checkpoint_name(args.checkpoint.resolve())
    details = [["initial weights", f"converted from {args.checkpoint.name}, in the format of the published code"]]
    details += latency_rows(forward_time(model, model.device))
    sections, license = [("Example", example)] if example else [], None
    if released:
        details[0][1] = f"converted from {released}, which the authors' repository releases"
        details.insert(1, ["training data", f"{CHECKPOINTS[released]}, 200 epochs, by the published code"])
        text = "After fine-tuning. Not measured with this package. Source: "
        sections.append(("Results", f"{text}{SOURCE}.\n\n{markdown_table(*results_table(released))}"))
        license = "The authors' repository, which releases the weights, is under apache-2.0; the training data are not."
    location = f"path/to/{name}" if args.output.is_absolute() else args.output.as_posix()
    metadata = {"license": args.license} if args.license else {}
    card = model_card(
        model, name, location, metadata=metadata, details=details, sections=sections, data_license=license
    )
    return str(card)


@command("deepavfusion convert")
def main(argv: list[str]) -> int:
    """Run the command; returns 0, or 2 for an unusable checkpoint or argument."""
    args = parse("convert", argv)
    plain_output()
    folder = ResultFolder(args.output, "convert", "output", overwrite=args.overwrite)
    folder.plan(conversion_fingerprint(args.checkpoint, args.task, args.config, args.example))
    config = None
    if args.config:
        with reading_model(args.config):
            config = deepavfusion.DeepAVFusionConfig.from_pretrained(args.config)
    try:
        model = deepavfusion.load_original_checkpoint(args.checkpoint, config=config, task=args.task)
    except Exception as error:
        if machine_failure(error):
            raise
        text = cause(error, args.checkpoint)
        if isinstance(error, UndeterminedError):
            text = f"{error.reason}; pass --config FOLDER."
        say(f"deepavfusion convert: {args.checkpoint}: {text}", stream=sys.stderr)
        return BAD_INPUT
    processor = DeepAVFusionProcessor.from_model(model)
    if args.example:
        load_clip(args.example, require="both")  # before anything is written
    with folder.claimed():
        folder.begin()
        with saving(folder.path, sum(p.numel() * p.element_size() for p in model.parameters())):
            model.save_pretrained(folder.draft)
            processor.save_pretrained(folder.draft)
            example = write_clip_example(folder.draft, model, processor, args.example) if args.example else ""
            write_atomically(folder.draft / "README.md", _card(model, args, example))
        apply_umask(file for file in folder.draft.rglob("*") if file.is_file())
        folder.publish()
    folder.close()
    number = sum(p.numel() for p in model.parameters())
    say(f"{type(model).__name__} with {number / 1e6:.1f} M parameters written to {args.output}")
    say(describe(model.config))
    if args.push_to_hub:
        publish(args.output, Upload(args.push_to_hub), license=args.license)
    return 0


if __name__ == "__main__":
    sys.exit(main())
