"""What a pre-training run is made of before its first step: accelerator, folder, data, model, optimiser."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import IO, Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining, DeepAVFusionModel
from deepavfusion.inference.common import quiet_library
from deepavfusion.inference.files import write_atomically

from ..config.arguments import COMPUTATION, PretrainArguments
from ..config.recipe import RecipeError
from .checkpoints import CheckpointFolder
from .folder import RECIPE_FILE, check_origin, claim_folder, require_same_recipe
from .logging import MetricsFile, check_trackers
from .optimization import parameter_groups, scaled_learning_rate

# Arguments by which a run may differ from the checkpoint it goes on from: they change neither weights nor data.
_FREE_ARGUMENTS = {
    "data": ("cache_dir", "num_workers", "max_broken"),
    "optim": ("batch_size", "gradient_accumulation", "fsdp"),  # the effective batch counts
    "model": COMPUTATION,
}


def build_accelerator(args: PretrainArguments) -> Accelerator:
    """The accelerator of the launched processes; raises `RecipeError` for combinations that it cannot run."""
    check_trackers(args.run.trackers)
    if args.optim.fsdp and args.optim.mixed_precision == "fp16":
        raise RecipeError("optim.fsdp=true shards parameters, which fp16 loss scaling does not support: use bf16.")
    try:
        return Accelerator(
            mixed_precision=args.optim.mixed_precision,
            cpu=args.run.cpu,
            log_with=args.run.trackers or None,
            project_dir=args.run.output_dir,
        )
    except ValueError as error:  # such as fp16 without a device for it
        raise RecipeError(f"optim.mixed_precision={args.optim.mixed_precision}: {error}") from error


@dataclasses.dataclass
class Schedule:
    """A run's length and learning rate in optimiser steps.

    Args:
        num_clips: clips in the training set.
        effective_batch: clips per optimiser step, over all processes and accumulated micro-batches.
    """

    args: PretrainArguments
    num_clips: int
    effective_batch: int

    def __post_init__(self):
        if self.num_clips < 1:
            raise RecipeError(f"The training split of data.name={self.args.data.name} holds no clips.")

    @property
    def total_steps(self) -> int:
        return self.steps(self.args.optim.epochs)

    @property
    def lr(self) -> float:
        return scaled_learning_rate(self.args.optim.base_lr, self.effective_batch)

    def steps(self, epochs: float) -> int:
        """Optimiser steps in so many epochs, at least 1."""
        return max(1, math.ceil(epochs * self.num_clips / self.effective_batch - 1e-9))

    def epoch(self, step: int) -> float:
        """Passes over the training clips that `step` optimiser steps make."""
        return step * self.effective_batch / self.num_clips


def fingerprint(args: PretrainArguments, effective_batch: int) -> dict[str, Any]:
    """What decides a run's weights: a checkpoint is continued only under the same."""
    sections = args.to_dict()
    for section, names in _FREE_ARGUMENTS.items():
        for name in names:
            sections[section].pop(name)
    return {
        "model": sections["model"],
        "data": sections["data"],
        "optim": {**sections["optim"], "effective_batch": effective_batch},
        "seed": args.run.seed,
    }


def open_output_folder(
    args: PretrainArguments, accelerator: Accelerator, current: dict[str, Any]
) -> tuple[CheckpointFolder, MetricsFile, int, IO[str] | None]:
    """Creates or reopens the result folder.

    Returns:
        its checkpoints, its metrics, the step to resume from (0: from the start), and on the main process the lock, to
        be closed when the run ends.

    Raises:
        RecipeError: for a folder that holds something else, a checkpoint of another recipe, or another run at work.
    """
    output = Path(args.run.output_dir)
    checkpoints = CheckpointFolder(output / "checkpoints", args.run.keep_checkpoints)
    metrics = MetricsFile(output / "metrics.jsonl")
    lock = claim_folder(output, accelerator)
    steps = checkpoints.steps()
    resumes = bool(steps) and args.run.resume
    if resumes:
        require_same_recipe(output, checkpoints.read_state(steps[-1])["fingerprint"], current, args.run)
    step = steps[-1] if resumes else 0
    accelerator.wait_for_everyone()  # all have looked before the main process changes anything
    if accelerator.is_main_process:
        checkpoints.remove_unfinished()
        if not resumes and checkpoints.folder.exists():
            shutil.rmtree(checkpoints.folder)
        metrics.keep_until(step if resumes else -1)
        write_atomically(output / RECIPE_FILE, args.to_yaml())
        write_atomically(output / ".gitignore", ".lock\n.initial/\ncheckpoints/\ntensorboard/\nwandb/\ndeepavfusion/\n")
    accelerator.wait_for_everyone()
    return checkpoints, metrics, step, lock


def build_model(args: PretrainArguments, accelerator: Accelerator) -> DeepAVFusionForPreTraining:
    """The model on its device, with random, earlier or unimodal weights; sharded where `optim.fsdp`."""
    set_seed(args.run.seed)
    if args.model.init_from is not None:
        model = _earlier_model(args.model.init_from)
    else:
        model = DeepAVFusionForPreTraining(args.model.build_config())
    if args.model.init_image is not None or args.model.init_audio is not None:
        try:
            encoder = DeepAVFusionModel.from_unimodal_pretrained(
                image=args.model.init_image, audio=args.model.init_audio, config=model.config
            )
        except (OSError, ValueError) as error:
            raise RecipeError(f"model.init_image / model.init_audio cannot be used: {error}") from error
        model.deepavfusion.load_state_dict(encoder.state_dict())
    if args.optim.fsdp:
        model = _shard(model, Path(args.run.output_dir) / ".initial", accelerator)
    else:
        model = model.to(accelerator.device)
    args.model.set_computation(model)
    if args.run.compile:
        model.compile()
    return model.train()


def _earlier_model(origin: str) -> DeepAVFusionForPreTraining:
    """A saved model; one without decoders (an encoder, a classifier) gets new ones. An incomplete encoder raises."""
    check_origin(origin, "model.init_from")
    try:
        with quiet_library():
            model, info = DeepAVFusionForPreTraining.from_pretrained(
                origin, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError) as error:
        raise RecipeError(f"model.init_from={origin} cannot be used: {error}") from error
    missing = sorted(name for name in info["missing_keys"] if name.startswith("deepavfusion."))
    if missing:
        raise RecipeError(f"model.init_from={origin} lacks weights of the encoder: {', '.join(missing)}.")
    return model


def _shard(model: DeepAVFusionForPreTraining, folder: Path, accelerator: Accelerator) -> DeepAVFusionForPreTraining:
    """The same model under FSDP2 as the library applies it: it shards while it loads, so it is saved first."""
    from transformers.distributed import DistributedConfig

    if accelerator.num_processes == 1:
        raise RecipeError(
            "optim.fsdp=true shards over processes, but there is one: launch several (accelerate launch)."
        )
    config = DistributedConfig(fsdp_size=accelerator.num_processes)
    with quiet_library():
        if accelerator.is_main_process:
            model.save_pretrained(folder)
        accelerator.wait_for_everyone()
        sharded = DeepAVFusionForPreTraining.from_pretrained(folder, distributed_config=config, dtype=torch.float32)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(folder)
    return sharded


def slow_towers(args: PretrainArguments) -> tuple[str, ...]:
    """Towers that start from unimodal weights, and thus slowly."""
    if args.optim.tower_warmup_epochs == 0:
        return ()
    origins = {"image": args.model.init_image, "audio": args.model.init_audio}
    return tuple(tower for tower, origin in origins.items() if origin is not None)


def slow_start_epochs(args: PretrainArguments) -> float:
    given = args.optim.tower_warmup_epochs
    return args.optim.epochs / 2 if given is None else given


def build_optimizer(args: PretrainArguments, model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW over the recipe's parameter groups. `model` is not wrapped."""
    groups = parameter_groups(model, args.optim.weight_decay, slow_towers=slow_towers(args))
    for group in groups:
        group.pop("names")
    fused = None if args.optim.fsdp else True  # one kernel a group instead of a dozen a tensor
    return torch.optim.AdamW(groups, lr=0.0, betas=tuple(args.optim.betas), fused=fused)


def num_patches(config: DeepAVFusionConfig) -> tuple[int, int]:
    """Patches of the image (or video) and of the spectrogram."""
    return config.num_patches


__all__ = [
    "Schedule",
    "build_accelerator",
    "build_model",
    "build_optimizer",
    "fingerprint",
    "num_patches",
    "open_output_folder",
    "slow_start_epochs",
    "slow_towers",
]
