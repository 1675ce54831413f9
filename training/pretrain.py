"""Masked audio-visual pre-training (paper, section 3.4).

    CPU or one device:  deepavfusion pretrain scenes_tiny
                        python -m deepavfusion.training.pretrain folder data.path=videos optim.epochs=100
    many devices:       accelerate launch -m deepavfusion.training.pretrain vggsound_base data.path=/data/vggsound
    processes on CPU:   torchrun --nproc_per_node 2 -m deepavfusion.training.pretrain scenes_tiny run.cpu=true

RECIPE is the name of a recipe of the package or the path of one; `section.key=value` arguments change it. A run whose
folder holds a checkpoint goes on from it, batch by batch as if it had never stopped.

Exit codes: 0 done; 143 after SIGTERM and 130 after SIGINT (Ctrl-C), with a checkpoint of the last whole step written;
2 for a recipe that cannot be used; 1 for everything else (a loss that is not finite, too many unreadable clips).
"""

import contextlib
import math
import sys
import time

import torch
from accelerate.utils import gather_object

from .arguments import PretrainArguments, load_arguments
from .batches import BrokenDataError, generator_for, mask_noise
from .evaluation import model_inputs
from .job import Job
from .optimization import learning_rate, set_learning_rates, slow_start_factor
from .precision import set_float32_precision
from .preparation import num_patches, slow_start_epochs
from .recipe import RecipeError, recipe_names
from .results import finish
from .stopping import StopRequest

_DROPOUT_STREAM = 3  # keeps its generator apart from those of order and masks


class NonFiniteError(RuntimeError):
    """The loss or the gradient is NaN or infinite; the message names the clips of the batch."""


def train_step(job: Job, batches, step: int, stop: StopRequest) -> dict[str, float]:
    """One optimiser step.

    Returns:
        sums over all processes: "loss", "image_loss", "audio_loss" times clips, "clips"; "grad_norm", "lr", "wait"
        (seconds that this process waited for clips), and "stop", the largest signal that any process got.

    Raises:
        NonFiniteError, BrokenDataError: on all processes alike.
    """
    args, accelerator, order = job.args, job.accelerator, job.order
    epoch = job.schedule.epoch(step)
    lr = learning_rate(epoch, job.schedule.lr, args.optim.epochs, args.optim.warmup_epochs, args.optim.min_lr)
    set_learning_rates(job.optimizer, lr, slow_start_factor(epoch, slow_start_epochs(args)))
    dropout = generator_for(args.run.seed, _DROPOUT_STREAM, step, accelerator.process_index)
    torch.manual_seed(dropout.initial_seed())
    sums = torch.zeros(4, dtype=torch.float64)
    broken, paths, wait = [], [], 0.0
    for micro in range(order.accumulation):
        started = time.perf_counter()
        batch = next(batches)
        wait += time.perf_counter() - started
        broken += batch["broken"]
        clips = len(batch["path"]) if "pixel_values" in batch else 0
        paths += batch["path"]
        inputs = model_inputs(batch, job.config, accelerator.device)
        noise = mask_noise(args.run.seed, step, micro, order, num_patches(job.config))
        image_noise, audio_noise = (part[: max(clips, 1)].to(accelerator.device) for part in noise)
        last = micro == order.accumulation - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(job.model):
            with accelerator.autocast():
                outputs = job.model(**inputs, image_noise=image_noise, audio_noise=audio_noise)
            accelerator.backward(outputs.loss * (min(clips, 1) / order.accumulation))
        losses = torch.stack([outputs.loss, outputs.image_loss, outputs.audio_loss]).detach().cpu().double()
        if clips:
            sums += torch.cat([losses, torch.ones(1, dtype=torch.float64)]) * clips
    return {**_agree(job, sums, broken, paths, step, stop), **_update(job, paths, step), "lr": lr, "wait": wait}


def _agree(
    job: Job, sums: torch.Tensor, broken: list, paths: list[str], step: int, stop: StopRequest
) -> dict[str, float]:
    """Adds what processes saw; all of them go on, or all raise for the same reason."""
    accelerator = job.accelerator
    finite = bool(sums.isfinite().all())
    seen = torch.cat([torch.where(sums.isfinite(), sums, 0.0), torch.tensor([float(not finite), len(broken)])])
    flags = torch.zeros(accelerator.num_processes, dtype=torch.float64)
    flags[accelerator.process_index] = stop.signal or 0
    dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
    total = accelerator.reduce(torch.cat([seen, flags]).to(accelerator.device, dtype), "sum").cpu().tolist()
    if total[4]:
        _raise_non_finite(job, "loss", [] if finite else paths, step)
    if total[5]:
        for line in job.broken.add(gather_object(broken)):
            job.reporter.print(line)
    return {
        **dict(zip(("loss", "image_loss", "audio_loss", "clips"), total[:4], strict=True)),
        "stop": max(total[6:]),
    }


def _update(job: Job, paths: list[str], step: int) -> dict[str, float]:
    """Clips the gradient where asked for, and moves the weights. Not finite: raises, unless fp16 scaling handles it."""
    accelerator = job.accelerator
    accelerator.unscale_gradients(job.optimizer)
    parameters = [p for p in job.model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if job.args.optim.clip_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, job.args.optim.clip_grad_norm, norm)
    norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    if not math.isfinite(norm) and accelerator.scaler is None:
        _raise_non_finite(job, "gradient", paths, step)
    job.optimizer.step()
    job.optimizer.zero_grad()
    return {"grad_norm": norm}


def _raise_non_finite(job: Job, what: str, paths: list[str], step: int) -> None:
    names = "\n".join(f"  {path}" for path in gather_object(paths))
    raise NonFiniteError(f"The {what} of step {step + 1} is not finite. The clips of its batch:\n{names}")


class Window:
    """Sums since the last log line. They are part of a checkpoint, so that a resumed run logs the same lines."""

    def __init__(self, sums: dict[str, float] | None = None):
        self.sums = dict(sums or {})

    def add(self, totals: dict[str, float], seconds: float) -> None:
        for key, value in {**totals, "seconds": seconds, "steps": 1.0}.items():
            self.sums[key] = self.sums.get(key, 0.0) + value

    def record(self, job: Job, step: int, lr: float) -> dict[str, float]:
        """The record of a log line, from the sums, which start anew."""
        sums, self.sums = self.sums, {}
        clips = max(sums["clips"], 1.0)
        return {
            "step": step,
            "kind": "train",
            "epoch": job.schedule.epoch(step),
            **{key: sums[key] / clips for key in ("loss", "image_loss", "audio_loss")},
            "lr": lr,
            "grad_norm": sums["grad_norm"] / sums["steps"],
            "samples_per_second": clips / sums["seconds"],
            "waiting_share": sums["wait"] / sums["seconds"],
            "eta": (job.schedule.total_steps - step) * sums["seconds"] / sums["steps"],
        }


def train(job: Job) -> int:
    """The loop, from the job's step to the last. Returns 0, or the number of the signal that ended it early."""
    args, schedule = job.args, job.schedule
    eval_steps, save_steps = schedule.steps(args.run.eval_epochs), schedule.steps(args.run.save_epochs)
    if job.step == 0:
        job.evaluate(0)
    window, batches = Window(job.window), iter(job.training_loader())
    with StopRequest() as stop:
        while job.step < schedule.total_steps:
            started = time.perf_counter()
            totals = train_step(job, batches, job.step, stop)
            job.step = step = job.step + 1
            last, requested = step == schedule.total_steps, int(totals.pop("stop"))
            lr = totals.pop("lr")
            seconds = time.perf_counter() - started
            job.seconds += seconds
            job.clips += int(totals["clips"])
            window.add(totals, seconds)
            job.reporter.advance(totals["loss"] / max(totals["clips"], 1.0))
            if step % args.run.log_steps == 0 or last:
                job.log(window.record(job, step, lr))
            if step % eval_steps == 0 or last:
                job.evaluate(step)
            if step % save_steps == 0 or last or requested:
                job.save(window.sums)
            if requested and not last:
                return requested
    return 0


def parse(argv: list[str]) -> PretrainArguments | None:
    """Arguments of a run; None after printing the help."""
    if not argv or argv[0] in ("-h", "--help"):
        names = ", ".join(recipe_names(PretrainArguments))
        print(f"usage: deepavfusion pretrain RECIPE [section.key=value ...]\n\nrecipes: {names}\n")
        print(__doc__)
        return None
    return load_arguments(argv[0], argv[1:])


def main(argv: list[str] | None = None) -> int:
    """Trains from a recipe and leaves a Hub folder. Returns the exit code (see the module's docstring)."""
    argv = sys.argv[1:] if argv is None else argv
    set_float32_precision()
    try:
        args = parse(argv)
        if args is None:
            return 0 if argv else 2
        job = Job.open(args)
    except (RecipeError, ImportError) as error:
        print(f"deepavfusion pretrain: {error}", file=sys.stderr)
        return 2
    try:
        ended_by = train(job)
        if not ended_by:
            finish(job)
    except (NonFiniteError, BrokenDataError) as error:
        if job.accelerator.is_main_process:
            print(f"deepavfusion pretrain: {error}", file=sys.stderr)
        return 1
    finally:
        job.close()
    if ended_by:
        job.reporter.print(f"stopped by signal {ended_by} after step {job.step}; the same command goes on from there")
        return 128 + ended_by
    return 0


if __name__ == "__main__":
    sys.exit(main())
