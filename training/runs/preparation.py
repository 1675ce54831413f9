"""What a pre-training run is made of before its first step: accelerator, folder, data, model, optimiser."""

import dataclasses
import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining, DeepAVFusionModel
from deepavfusion.inference.common import quiet_library
from deepavfusion.inference.files import write_atomically

from .arguments import COMPUTATION, PretrainArguments
from .checkpointing import remove_entry
from .folders import BatchLayout, RunFolder, check_origin
from .optimization import parameter_groups, scaled_learning_rate
from .recipe import RecipeError
from .tracking import check_trackers, quiet_library

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
        accelerator = Accelerator(
            mixed_precision=args.optim.mixed_precision,
            cpu=args.run.cpu,
            log_with=args.run.trackers or None,
            project_dir=args.run.output_dir,
        )
    except ValueError as error:  # such as fp16 without a device for it
        raise RecipeError(f"optim.mixed_precision={args.optim.mixed_precision}: {error}") from error
    if args.optim.fsdp and accelerator.num_processes == 1:
        raise RecipeError(
            "optim.fsdp=true shards over processes, but there is one: launch several (accelerate launch)."
        )
    return accelerator


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


def fingerprint(args: PretrainArguments) -> dict[str, Any]:
    """What decides a run's weights, beside the effective batch: a checkpoint is continued only under the same."""
    sections = args.to_dict()
    for section, names in _FREE_ARGUMENTS.items():
        for name in names:
            sections[section].pop(name)
    return {**{name: sections[name] for name in ("model", "data", "optim")}, "seed": args.run.seed}


def batch_layout(args: PretrainArguments, accelerator: Accelerator) -> BatchLayout:
    return BatchLayout(args.optim.batch_size, args.optim.gradient_accumulation, accelerator.num_processes)


def build_model(args: PretrainArguments, accelerator: Accelerator) -> DeepAVFusionForPreTraining:
    """The model with random, earlier or unimodal weights, on its device unless it is to be sharded."""
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
        args.model.set_attention(model)  # so that one that cannot be used is refused here
        return model
    return _ready(model.to(accelerator.device), args)


def _ready(model: DeepAVFusionForPreTraining, args: PretrainArguments) -> DeepAVFusionForPreTraining:
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


def shard(
    model: DeepAVFusionForPreTraining, args: PretrainArguments, run_folder: RunFolder, accelerator: Accelerator
) -> DeepAVFusionForPreTraining:
    """The same model under FSDP2 as the library applies it: it shards while it loads, so it is saved first."""
    from transformers.distributed import DistributedConfig

    folder = run_folder.checkpoints / ".writing-initial-model"
    config = DistributedConfig(fsdp_size=accelerator.num_processes)
    with quiet_library():
        if accelerator.is_main_process:
            model.save_pretrained(folder)
        accelerator.wait_for_everyone()
        sharded = DeepAVFusionForPreTraining.from_pretrained(folder, distributed_config=config, dtype=torch.float32)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        remove_entry(folder)
    return _ready(sharded, args)


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
    return math.prod(config.image_grid), math.prod(config.audio_grid)


__all__ = [
    "Schedule",
    "batch_layout",
    "build_accelerator",
    "build_model",
    "build_optimizer",
    "fingerprint",
    "num_patches",
    "shard",
    "slow_start_epochs",
    "slow_towers",
]
