"""Time, peak memory and FLOPs of the model against its textbook form and the published code, on one machine.

    python -m deepavfusion.training.experiments.benchmark                   # all cases at base size
    python -m deepavfusion.training.experiments.benchmark --cases dense_block --size small --repeats 5
    python -m deepavfusion.training.experiments.benchmark --published ../DeepAVFusion --threads 1
    python -m deepavfusion.training.experiments.benchmark --cases --recording clip.mp4
    python -m deepavfusion.training.experiments.benchmark --device cuda --cases pretraining_step --batch 64 256 \
        --published ../DeepAVFusion --output benchmark_cuda.json

Each case alternates between the forms: ours, in bfloat16 by autocast where the device is fast at it, and compiled on
GPUs or with --compile; the textbook's; and the published code's, where a checkout of it is given. All have equal
weights. Ratios are medians of paired ones, of CPU time on CPUs, which other programs disturb less, with those of wall
time beside them. Peak memory is the increase during the call: of the allocator on a GPU, of the resident set of a fresh
process on a CPU. PyTorch counts FLOPs, on meta tensors; their rate is also given as a fraction of that of a large
matrix product in the same dtype on the same machine. Operations that compute or copy are counted, of which each
launches a kernel at least on a GPU. With --recording, the separation of a file is timed as well, from decoding to its
samples, in float32 and bfloat16.
"""

import argparse
import json
from pathlib import Path

import torch

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.precision import fast_bfloat16
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser, positive

from ..measurement import describe_machine, matrix_product_peak
from .cases import CASES
from .timing import chosen_cases, run_case, time_separation


def parse_arguments(argv=None):
    """Parse the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--batch", nargs="*", type=positive, help="batch sizes, instead of those of the cases")
    parser.add_argument("--size", default="base", help="small, base, large or huge")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="also time our model compiled (default: on GPUs)",
    )
    parser.add_argument("--published", type=Path, metavar="PATH", help="checkout of the published code (needs timm)")
    parser.add_argument("--recording", type=Path, metavar="FILE", help="video whose separation is timed")
    parser.add_argument("--repeats", type=positive, default=7)
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    if args.compile is None:
        args.compile = args.device == "cuda"
    return args


def main(argv=None) -> dict:
    """Run the benchmark; returns the report."""
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    peaks: dict[bool, float | None] = {False: matrix_product_peak(args.device, getattr(torch, args.dtype))}
    peaks[True] = matrix_product_peak(args.device, torch.bfloat16) if fast_bfloat16(args.device) else None
    machine = {**describe_machine(args.device, args.threads), "dtype": args.dtype, "size": args.size}
    report = {
        "machine": machine,
        "matrix_product_flops_per_second": peaks[False],
        "matrix_product_flops_per_second_bfloat16": peaks[True],
        "cases": {},
    }

    def save() -> None:
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(args.output, json.dumps(report, indent=1) + "\n")

    for name, peak in zip((args.dtype, "bfloat16, by autocast"), peaks.values(), strict=True):
        if peak is not None:
            print(f"matrix product peak in {name}: {peak / 1e9:.0f} GFLOP/s")
    if args.recording:
        report["separation"] = time_separation(args)
        for name, seconds in report["separation"].items():
            print(f"separation in {name}: {seconds:.2f} CPU seconds per second of audio", flush=True)
    names = "".join(f"{name:>10}" for name in ("ms", "CPU ms", "x ours", "MB", "GFLOP", "% of peak", "ops"))
    print(f"{'case':<28}{'form':<26}{names}")
    for name, case in chosen_cases(args).items():
        report["cases"][name] = run_case(case, args, peaks)
        for form, row in report["cases"][name]["forms"].items():
            cells = (
                f"{1e3 * row['seconds']:.1f}",
                f"{1e3 * row['cpu_seconds']:.1f}",
                f"{row['ours_is_faster_by']:.2f}x",
                "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
                "-" if row["flops"] is None else f"{row['flops'] / 1e9:.1f}",
                "-" if row["fraction_of_peak"] is None else f"{100 * row['fraction_of_peak']:.0f} %",
                "-" if row["operations"] is None else f"{row['operations']}",
            )
            print(f"{name:<28}{form:<26}" + "".join(f"{cell:>10}" for cell in cells), flush=True)
        save()  # what is measured stays, whatever happens to the next case
    save()
    return report


if __name__ == "__main__":
    run_module(main)
