"""Pre-train a model by masked audio-visual reconstruction (paper, section 3.4).

    CPU or one device:  deepavfusion pretrain scenes_tiny
                        python -m deepavfusion.training.pretrain folder data.path=videos optim.epochs=100
    many devices:       accelerate launch -m deepavfusion.training.pretrain vggsound_base data.path=/data/vggsound
    processes on CPU:   torchrun --nproc_per_node 2 -m deepavfusion.training.pretrain scenes_tiny run.cpu=true

RECIPE is the name of a recipe in the package or the path of a recipe file; `section.key=value` overrides its options. A
run whose folder contains a checkpoint resumes from it, with exactly the batches of an uninterrupted run.

Exit codes: 0 success; 143 after SIGTERM and 130 after SIGINT (Ctrl-C), with a checkpoint of the last complete step; 2
for an unusable recipe; 1 for other errors (non-finite loss, too many unreadable clips, full disk, too little memory).
"""

import sys
from typing import TYPE_CHECKING

from deepavfusion_cli.boundary import command

from .command import train_from_recipe

if TYPE_CHECKING:
    from .runs.run import Run


def demonstrate(run: "Run") -> str:
    """Write a held-out scene (mp4, wav, png) beside the saved model and embed it with the model's pipeline.

    Returns:
        A line for the terminal; empty unless `run.demo` is set.
    """
    if not run.recipe.run.demo:
        return ""
    from deepavfusion.inference import embed

    from .data.scenes import SPLIT_OFFSETS, ScenesConfig, write_scene

    scenes = getattr(run.final.clips, "config", None)
    if not isinstance(scenes, ScenesConfig):
        scenes = ScenesConfig(image_size=run.trainer.model.config.frame_size)
    draft, folder = run.folder.draft, run.folder.path
    write_scene(scenes, SPLIT_OFFSETS["test"], draft / "scene")
    clip = draft / "scene" / "clip.mp4"
    streams = embed.embed(embed.load(str(run.folder.work), "cpu"), str(clip))
    embed.save(streams, draft / "scene" / "clip.safetensors", str(clip), folder.name)
    shapes = ", ".join(f"{name} {tuple(stream.shape)}" for name, stream in streams.items() if name in embed.STREAMS)
    return f"embedded {folder / 'scene' / 'clip.mp4'} with the saved model: {shapes}"


@command("deepavfusion pretrain")
def main(argv: list[str]) -> int:
    """Pre-train from a recipe; returns the exit code (see the module's docstring)."""
    return train_from_recipe("pretrain", argv, __doc__, after=demonstrate)


if __name__ == "__main__":
    sys.exit(main())
