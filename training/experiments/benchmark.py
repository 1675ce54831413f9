"""Time, peak memory and FLOPs of the model against its textbook form, on one machine.

    python -m deepavfusion.training.experiments.benchmark                   # all cases at base size
    python -m deepavfusion.training.experiments.benchmark --cases dense_block --size small --repeats 5
    python -m deepavfusion.training.experiments.benchmark --device cuda --dtype bfloat16 --output benchmark_cuda.json

Each case alternates between the two forms and reports the median of the paired ratios. Peak memory is the increase
during the call: of the allocator on a GPU, of the resident set of a fresh process on a CPU. PyTorch counts FLOPs, on
meta tensors; their rate is also given as a fraction of that of a large matrix product on the same machine.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining, DeepAVFusionModel
from deepavfusion.fusion_deepavfusion import DeepAVFusionFusionLayer
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser, positive

from .measurement import describe_machine, in_fresh_process, matrix_product_peak, resident_growth, synchronize
from .textbook import textbook


@dataclass(frozen=True)
class Case:
    """A module to build and a call to time.

    Attributes:
        goal: What the case shows.
        part: "block" (one fusion layer), "encoder" or "pretraining".
        batch: Samples per call.
        backward: Whether the call includes the backward pass.
        overrides: Configuration overrides.
        masked: Whether the encoder sees only the patches that masked pre-training keeps.
        scale: Factor on the number of patches of both modalities (blocks only).
    """

    goal: str
    part: str
    batch: int
    backward: bool
    overrides: dict
    masked: bool = False
    scale: float = 1.0


PARTS = {"block": DeepAVFusionFusionLayer, "encoder": DeepAVFusionModel, "pretraining": DeepAVFusionForPreTraining}
DENSE, FACTORIZED = {"fusion_type": "dense"}, {"fusion_type": "factorized"}
CASES = {
    "dense_block": Case("dense fusion block alone, forward", "block", 1, False, DENSE),
    "dense_block_training": Case("dense fusion block alone, forward and backward", "block", 1, True, DENSE),
    "dense_block_half": Case("growth: half the patches of each modality", "block", 1, False, DENSE, scale=0.5),
    "dense_block_double": Case("growth: twice the patches of each modality", "block", 1, False, DENSE, scale=2.0),
    "dense_encoder": Case("dense encoder, forward", "encoder", 1, False, DENSE),
    "factorized_encoder": Case("factorized encoder, forward", "encoder", 2, False, FACTORIZED),
    "masked_encoder": Case("masked encoder, forward and backward", "encoder", 8, True, FACTORIZED, True),
    "pretraining_step": Case("pre-training step, forward and backward", "pretraining", 8, True, FACTORIZED),
}


class Workload:
    """Module of a case, in both forms, with inputs."""

    def __init__(self, case: Case, size: str, device: str, dtype: torch.dtype, seed: int = 0):
        torch.manual_seed(seed)
        self.case = case
        self.config = config = DeepAVFusionConfig.from_size(size, **case.overrides)
        config._attn_implementation = "sdpa"
        self.device, self.dtype = device, dtype
        with torch.device(device):
            module = PARTS[case.part](config)
        self.module = module.to(device, dtype)
        self.module.train(case.backward)
        self.inputs = self._inputs()

    def _inputs(self) -> tuple[tuple, dict]:
        case, config, batch = self.case, self.config, self.case.batch
        counts = [torch.Size(grid).numel() for grid in (config.image_grid, config.audio_grid)]

        def random(*shape):
            return torch.randn(*shape, device=self.device, dtype=self.dtype)

        if case.part == "block":
            tokens = [config.num_all_fusion_tokens, *(int(n * case.scale) for n in counts)]
            return tuple(random(batch, n, config.hidden_size) for n in tokens), {}
        pixel_values = random(batch, config.num_channels, *config.frame_size)
        values = (pixel_values, random(batch, 1, config.num_mel_bins, config.spectrogram_length))
        if not case.masked:
            return values, {}
        ratios = (config.image_mask_ratio, config.audio_mask_ratio)
        kept = [int(n * (1 - r)) for n, r in zip(counts, ratios, strict=True)]
        ids = [torch.rand(batch, n, device=self.device).argsort(1)[:, :k] for n, k in zip(counts, kept, strict=True)]
        return values, {"image_ids_keep": ids[0], "audio_ids_keep": ids[1]}

    def form(self, name: str) -> nn.Module:
        """The module itself ("ours"), or its textbook form."""
        return self.module if name == "ours" else textbook(self.module)

    def call(self, module: nn.Module) -> None:
        """Run the forward pass, and the backward pass if the case includes it."""
        args, kwargs = self.inputs
        with torch.set_grad_enabled(self.case.backward):
            outputs = module(*args, **kwargs)
            if self.case.backward:
                module.zero_grad(set_to_none=True)
                if self.case.part == "pretraining":
                    outputs.loss.backward()
                else:
                    outputs = outputs[:1] if self.case.part == "block" else outputs.to_tuple()
                    sum(x.float().square().mean() for x in outputs).backward()


def timed(workload: Workload, module: nn.Module) -> float:
    """Seconds of one call."""
    synchronize(workload.device)
    start = time.perf_counter()
    workload.call(module)
    synchronize(workload.device)
    return time.perf_counter() - start


def count_flops(case: Case, size: str, form: str) -> int:
    """FLOPs of one call, counted on meta tensors (nothing is computed)."""
    workload = Workload(case, size, "meta", torch.float32)
    module = workload.form(form).requires_grad_(case.backward)
    for part in module.modules():
        if hasattr(part, "config"):
            part.config._attn_implementation = "eager"  # the counter does not support all fused kernels
    with FlopCounterMode(display=False) as counter:
        workload.call(module)
    return counter.get_total_flops()


def _cpu_memory(case, size, form, dtype, threads) -> int:
    torch.set_num_threads(threads)
    workload = Workload(case, size, "cpu", dtype)
    module = workload.form(form)
    if form != "ours":
        del workload.module
    return resident_growth(lambda: workload.call(module))


def peak_memory(case: Case, size: str, form: str, device: str, dtype: torch.dtype, threads: int) -> int:
    """Peak memory of one call in bytes, excluding weights and inputs."""
    if device == "cuda":
        workload = Workload(case, size, device, dtype)
        module = workload.form(form)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        workload.call(module)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    return in_fresh_process(_cpu_memory, case, size, form, dtype, threads)


def run_case(name: str, args, peak: float) -> dict:
    """Time both forms of a case alternately; returns medians, and the median of the paired ratios."""
    case, dtype = CASES[name], getattr(torch, args.dtype)
    workload = Workload(case, args.size, args.device, dtype)
    forms = {form: workload.form(form) for form in ("ours", "textbook")}
    for module in forms.values():
        workload.call(module)  # warm-up
    seconds = {form: [] for form in forms}
    for _ in range(args.repeats):
        for form, module in forms.items():
            seconds[form].append(timed(workload, module))
    ratios = [slow / fast for fast, slow in zip(seconds["ours"], seconds["textbook"], strict=True)]
    result = {"goal": case.goal, "batch": case.batch, "speedup": statistics.median(ratios), "ratios": ratios}
    del workload, forms
    for form in seconds:
        flops = count_flops(case, args.size, form)
        median = statistics.median(seconds[form])
        result[form] = {
            "seconds": median,
            "flops": flops,
            "share_of_peak": flops / median / peak,
            "peak_bytes": peak_memory(case, args.size, form, args.device, dtype, args.threads),
        }
    return result


def parse_arguments(argv=None):
    """Parse the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--size", default="base", help="small, base, large or huge")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--repeats", type=positive, default=7)
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    return parser.parse_args(argv)


def main(argv=None) -> dict:
    """Run the benchmark; returns the report."""
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    peak = matrix_product_peak(args.device, getattr(torch, args.dtype))
    machine = {**describe_machine(args.device, args.threads), "dtype": args.dtype, "size": args.size}
    report = {"machine": machine, "matrix_product_flops_per_second": peak, "cases": {}}
    print(f"matrix product peak: {peak / 1e9:.0f} GFLOP/s")
    header = ("case", "ours ms", "textbook ms", "speedup", "ours MB", "textbook MB", "GFLOP", "textbook", "% of peak")
    print("{:<22}{:>10}{:>13}{:>9}{:>10}{:>13}{:>9}{:>10}{:>11}".format(*header))
    for name in args.cases:
        result = run_case(name, args, peak)
        report["cases"][name] = result
        ours, reference = result["ours"], result["textbook"]
        print(
            f"{name:<22}{ours['seconds'] * 1e3:>10.1f}{reference['seconds'] * 1e3:>13.1f}{result['speedup']:>8.2f}x"
            f"{ours['peak_bytes'] / 1e6:>10.0f}{reference['peak_bytes'] / 1e6:>13.0f}{ours['flops'] / 1e9:>9.1f}"
            f"{reference['flops'] / 1e9:>10.1f}{ours['share_of_peak'] * 100:>10.0f}%",
            flush=True,
        )
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    return report


if __name__ == "__main__":
    run_module(main)
