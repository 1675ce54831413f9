"""Turns a published checkpoint into a folder that `from_pretrained` loads, and publishes it on request.

deepavfusion convert deepavfusion_vitb_vggsound_ep200.pth converted/
deepavfusion convert checkpoint_latest.pth converted/ --push-to-hub ORG/NAME
deepavfusion convert checkpoint_latest.pth converted/ --task encoder --config other_folder
"""

import argparse
import sys
from pathlib import Path

import deepavfusion
from deepavfusion.processors import DeepAVFusionProcessor


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        prog="deepavfusion convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="published file, .pth or .safetensors")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--task", help="encoder, pretraining, classification, separation or segmentation; inferred")
    parser.add_argument("--config", help="folder or Hub id with the config.json, where sizes cannot be inferred")
    parser.add_argument("--push-to-hub", metavar="ORG/NAME", help="repository to publish the folder in")
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_arguments(argv)
    if not args.checkpoint.is_file():
        print(f"deepavfusion convert: there is no file {args.checkpoint}.", file=sys.stderr)
        return 2
    config = deepavfusion.DeepAVFusionConfig.from_pretrained(args.config) if args.config else None
    try:
        model = deepavfusion.load_original_checkpoint(args.checkpoint, config=config, task=args.task)
    except ValueError as error:
        print(f"deepavfusion convert: {args.checkpoint}: {error}", file=sys.stderr)
        return 1
    processor = DeepAVFusionProcessor.from_config(model.config)
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    number = sum(p.numel() for p in model.parameters())
    print(f"{type(model).__name__} with {number / 1e6:.1f} M parameters written to {args.output}")
    if args.push_to_hub:
        url = model.push_to_hub(args.push_to_hub).repo_url
        processor.push_to_hub(args.push_to_hub)
        print(f"published at {url}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
