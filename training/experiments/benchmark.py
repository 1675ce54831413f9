"""Time, peak memory and FLOPs of the model against its textbook form and the published code, on one machine.

    python -m deepavfusion.training.experiments.benchmark                   # all cases at base size
    python -m deepavfusion.training.experiments.benchmark --cases dense_block --size small --repeats 5
    python -m deepavfusion.training.experiments.benchmark --published ../DeepAVFusion --threads 1
    python -m deepavfusion.training.experiments.benchmark --cases --recording clip.mp4
    python -m deepavfusion.training.experiments.benchmark --device cuda --dtype bfloat16 --output benchmark_cuda.json

Each case alternates between the forms: ours, in bfloat16 by autocast where the device is fast at it; the textbook's;
and the published code's, where a checkout of it is given. All have equal weights. Ratios are medians of paired ones, of
CPU time on CPUs, which other programs disturb less, with those of wall time beside them. Peak memory is the increase
during the call: of the allocator on a GPU, of the resident set of a fresh process on a CPU. PyTorch counts FLOPs, on
meta tensors; their rate is also given as a fraction of that of a large matrix product on the same machine. With
--recording, the separation of a file is timed as well, from decoding to its samples, in float32 and bfloat16.
"""

import argparse
import contextlib
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
    DeepAVFusionProcessor,
)
from deepavfusion.fusion_deepavfusion import DeepAVFusionFusionLayer
from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.precision import fast_bfloat16
from deepavfusion.processors.pipelines_deepavfusion import AudioVisualSourceSeparationPipeline
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser, positive

from .measurement import describe_machine, in_fresh_process, matrix_product_peak, resident_growth, synchronize
from .references import published, textbook


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
# Form -> which module, and whether in bfloat16 by autocast.
FORMS = {
    "ours": ("ours", False),
    "ours, bfloat16": ("ours", True),
    "textbook": ("textbook", False),
    "published": ("published", False),
    "published, bfloat16": ("published", True),
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

    def form(self, name: str, published_code: Path | None = None) -> nn.Module:
        """The module itself ("ours"), its textbook form, or that of the published code."""
        if name == "published":
            return published(self.module, published_code)
        return self.module if name == "ours" else textbook(self.module)

    def call(self, module: nn.Module, autocast: bool = False) -> None:
        """Run the forward pass, and the backward pass if the case includes it."""
        args, kwargs = self.inputs
        with torch.set_grad_enabled(self.case.backward):
            with torch.autocast(self.device, torch.bfloat16) if autocast else contextlib.nullcontext():
                outputs = module(*args, **kwargs)
            if self.case.backward:
                module.zero_grad(set_to_none=True)
                if self.case.part == "pretraining":
                    outputs.loss.backward()
                else:
                    outputs = outputs[:1] if self.case.part == "block" else outputs.to_tuple()
                    sum(x.float().square().mean() for x in outputs).backward()


def timed(workload: Workload, module: nn.Module, autocast: bool) -> tuple[float, float]:
    """Seconds of one call by the clock, and of CPU time."""
    synchronize(workload.device)
    start, cpu_start = time.perf_counter(), time.process_time()
    workload.call(module, autocast)
    synchronize(workload.device)
    return time.perf_counter() - start, time.process_time() - cpu_start


def count_flops(case: Case, size: str, form: str) -> int:
    """FLOPs of one call on a CPU, counted on meta tensors (nothing is computed)."""
    workload = Workload(case, size, "meta", torch.float32)
    module = workload.form(form).requires_grad_(case.backward)
    with FlopCounterMode(display=False) as counter:
        workload.call(module)
    return counter.get_total_flops()


def _cpu_memory(case, size, form, dtype, threads, published_code) -> int:
    torch.set_num_threads(threads)
    workload = Workload(case, size, "cpu", dtype)
    name, autocast = FORMS[form]
    module = workload.form(name, published_code)
    if name != "ours":
        del workload.module
    return resident_growth(lambda: workload.call(module, autocast))


def peak_memory(case: Case, form: str, args) -> int:
    """Peak memory of one call in bytes, excluding weights and inputs."""
    dtype = getattr(torch, args.dtype)
    if args.device == "cuda":
        workload = Workload(case, args.size, args.device, dtype)
        name, autocast = FORMS[form]
        module = workload.form(name, args.published)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        workload.call(module, autocast)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    return in_fresh_process(_cpu_memory, case, args.size, form, dtype, args.threads, args.published)


def forms_of(case: Case, args) -> list[str]:
    """The forms of a case that are compared."""
    both = args.dtype == "float32" and fast_bfloat16(args.device)
    compared = args.published is not None and case.part != "block"
    names = ["ours", "textbook", *(["published"] if compared else [])]
    return [form for form, (name, autocast) in FORMS.items() if name in names and (both or not autocast)]


def run_case(name: str, args, peak: float) -> dict:
    """Time all forms of a case alternately; returns medians, and medians of the paired ratios to ours."""
    case, dtype = CASES[name], getattr(torch, args.dtype)
    workload = Workload(case, args.size, args.device, dtype)
    modules = {form: workload.form(form, args.published) for form in {FORMS[form][0] for form in forms_of(case, args)}}
    forms = {form: (modules[FORMS[form][0]], FORMS[form][1]) for form in forms_of(case, args)}
    for module, autocast in forms.values():
        workload.call(module, autocast)  # warm-up
    measured = {form: [] for form in forms}
    for _ in range(args.repeats):
        for form, (module, autocast) in forms.items():
            measured[form].append(timed(workload, module, autocast))
    del workload, modules, forms
    result = {"goal": case.goal, "batch": case.batch, "forms": {}}
    for form, times in measured.items():
        wall, cpu = (statistics.median(values) for values in zip(*times, strict=True))
        ratios = [
            [other / own for other, own in zip(theirs, ours, strict=True)]
            for theirs, ours in zip(times, measured["ours"], strict=True)
        ]
        by_wall, by_cpu = (statistics.median(values) for values in zip(*ratios, strict=True))
        of, autocast = FORMS[form]
        flops = None if of == "published" else count_flops(case, args.size, of)
        result["forms"][form] = {
            "seconds": wall,
            "cpu_seconds": cpu,
            "ours_is_faster_by": by_wall if args.device == "cuda" else by_cpu,
            "by_wall_time": by_wall,
            "flops": flops,
            "share_of_peak": None if flops is None or autocast else flops / wall / peak,
            "peak_bytes": peak_memory(case, form, args),
        }
    return result


def time_separation(args) -> dict[str, float]:
    """Seconds of CPU time that separating a second of audio takes, in float32 and, where it is fast, in bfloat16."""
    config = DeepAVFusionConfig.from_size(args.size)
    parts = DeepAVFusionForSourceSeparation(config), DeepAVFusionProcessor.from_config(config)
    pipeline = AudioVisualSourceSeparationPipeline(*parts, task="separation", device=args.device)
    found = {name: [] for name in ("float32", *(["bfloat16"] if fast_bfloat16(args.device) else []))}
    for _ in range(args.repeats):
        for name in found:
            pipeline.mixed_precision = None if name == "float32" else torch.bfloat16
            separation, start = pipeline.stream(args.recording), time.process_time()
            list(separation.parts())
            found[name].append((time.process_time() - start) / separation.recording.seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def parse_arguments(argv=None):
    """Parse the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--size", default="base", help="small, base, large or huge")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--published", type=Path, metavar="PATH", help="checkout of the published code (needs timm)")
    parser.add_argument("--recording", type=Path, metavar="FILE", help="video whose separation is timed")
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

    def save() -> None:
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(args.output, json.dumps(report, indent=1) + "\n")

    print(f"matrix product peak: {peak / 1e9:.0f} GFLOP/s")
    if args.recording:
        report["separation"] = time_separation(args)
        for name, seconds in report["separation"].items():
            print(f"separation in {name}: {seconds:.2f} CPU seconds per second of audio", flush=True)
    print(f"{'case':<22}{'form':<22}{'ms':>9}{'CPU ms':>9}{'x ours':>8}{'MB':>7}{'GFLOP':>8}{'% of peak':>11}")
    for name in args.cases:
        report["cases"][name] = run_case(name, args, peak)
        for form, row in report["cases"][name]["forms"].items():
            flops = "-" if row["flops"] is None else f"{row['flops'] / 1e9:.1f}"
            share = "-" if row["share_of_peak"] is None else f"{100 * row['share_of_peak']:.0f}%"
            print(
                f"{name:<22}{form:<22}{1e3 * row['seconds']:>9.1f}{1e3 * row['cpu_seconds']:>9.1f}"
                f"{row['ours_is_faster_by']:>7.2f}x{row['peak_bytes'] / 1e6:>7.0f}{flops:>8}{share:>11}",
                flush=True,
            )
        save()  # what is measured stays, whatever happens to the next case
    save()
    return report


if __name__ == "__main__":
    run_module(main)
