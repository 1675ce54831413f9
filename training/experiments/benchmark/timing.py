"""Time, memory, FLOPs and operations of the forms of a case."""

import dataclasses
import statistics
import time
from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForSourceSeparation, DeepAVFusionProcessor
from deepavfusion.inference.precision import fast_bfloat16
from deepavfusion.processors.pipelines_deepavfusion import AudioVisualSourceSeparationPipeline

from ..measurement import CountOperations, in_fresh_process, resident_growth, synchronize
from .cases import CASES, Case, Form, Workload, forms_of


def timed(workload: Workload, module: nn.Module, bfloat16: bool) -> tuple[float, float]:
    """Seconds of one call by the clock, and of CPU time."""
    synchronize(workload.device)
    start, cpu_start = time.perf_counter(), time.process_time()
    workload.call(module, bfloat16)
    synchronize(workload.device)
    return time.perf_counter() - start, time.process_time() - cpu_start


def count_flops(case: Case, size: str, code: str) -> int:
    """FLOPs of one call on a CPU, counted on meta tensors (nothing is computed)."""
    workload = Workload(case, size, "meta", torch.float32)
    module = workload.build(Form(code)).requires_grad_(case.backward)
    with FlopCounterMode(display=False) as counter:
        workload.call(module)
    return counter.get_total_flops()


def _cpu_memory(case, size, form, dtype, threads, published_code) -> int:
    torch.set_num_threads(threads)
    workload = Workload(case, size, "cpu", dtype)
    module = workload.build(form, published_code)
    if form.code != "ours":
        del workload.module
    return resident_growth(lambda: workload.call(module, form.bfloat16))


def peak_memory(case: Case, form: Form, args) -> int | None:
    """Peak memory of one call in bytes, excluding weights and inputs; None for compiled forms on a CPU.

    There, the memory that compilation takes cannot be told from that of the call.
    """
    dtype = getattr(torch, args.dtype)
    if args.device == "cuda":
        workload = Workload(case, args.size, args.device, dtype)
        module = workload.build(form, args.published)
        workload.call(module, form.bfloat16)  # compiles
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        workload.call(module, form.bfloat16)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if form.compiled:
        return None
    return in_fresh_process(_cpu_memory, case, args.size, form, dtype, args.threads, args.published)


def count_operations(workload: Workload, module: nn.Module, form: Form) -> int | None:
    """Operations of one call that compute or copy; None for compiled forms, whose kernels are generated."""
    if form.compiled:
        return None
    with CountOperations() as operations:
        workload.call(module, form.bfloat16)
    return operations.count


def run_case(case: Case, args, peaks: Mapping[bool, float | None]) -> dict:
    """Time all forms of a case alternately.

    Args:
        case: The case.
        args: Arguments of the command.
        peaks: FLOP/s of a large matrix product in the dtype of the weights, and, as `True`, in bfloat16.

    Returns:
        For each form its medians, and the median of its paired ratios to "ours".
    """
    workload, forms = Workload(case, args.size, args.device, getattr(torch, args.dtype)), forms_of(case, args)
    modules = {name: workload.build(form, args.published) for name, form in forms.items()}
    operations = {}
    for name, form in forms.items():
        workload.call(modules[name], form.bfloat16)  # warm-up
        operations[name] = count_operations(workload, modules[name], form)
    measured = {name: [] for name in forms}
    for _ in range(args.repeats):
        for name, form in forms.items():
            measured[name].append(timed(workload, modules[name], form.bfloat16))
    del workload, modules
    result = {"goal": case.goal, "batch": case.batch, "forms": {}}
    for name, form in forms.items():
        wall, cpu = (statistics.median(values) for values in zip(*measured[name], strict=True))
        ratios = [
            [other / own for other, own in zip(theirs, ours, strict=True)]
            for theirs, ours in zip(measured[name], measured["ours"], strict=True)
        ]
        by_wall, by_cpu = (statistics.median(values) for values in zip(*ratios, strict=True))
        flops = None if form.code == "published" else count_flops(case, args.size, form.code)
        peak = peaks.get(form.bfloat16)
        result["forms"][name] = {
            "seconds": wall,
            "cpu_seconds": cpu,
            "ours_is_faster_by": by_wall if args.device == "cuda" else by_cpu,
            "by_wall_time": by_wall,
            "flops": flops,
            "fraction_of_peak": None if flops is None or peak is None else flops / wall / peak,
            "operations": operations[name],
            "peak_bytes": peak_memory(case, form, args),
        }
    return result


def chosen_cases(args) -> dict[str, Case]:
    """The cases that are asked for, in each of the batch sizes, if any are given."""
    if not args.batch:
        return {name: CASES[name] for name in args.cases}
    return {
        f"{name}, batch {batch}": dataclasses.replace(CASES[name], batch=batch)
        for name in args.cases
        for batch in args.batch
    }


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


__all__ = ["chosen_cases", "count_flops", "run_case", "time_separation"]
