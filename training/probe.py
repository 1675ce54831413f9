"""Evaluate a frozen encoder by nearest neighbors and linear probes of its streams (paper, sections 4.2, 4.4).

    deepavfusion probe scenes_probe model.init_from=runs/quickstart

First, leave-one-out nearest-neighbor scores of the held-out clips are printed and written to nearest_neighbours.json.
Then linear classifiers are trained, with LARS in the published recipes, and evaluated like any fine-tuned model.

Exit codes: see `finetune`.
"""

import json
import sys
from typing import TYPE_CHECKING, Any

import torch

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.jobs.progress import with_progress
from deepavfusion_cli.boundary import command

from .command import train_from_recipe
from .data.loading import evaluation_loader
from .metrics.knn import neighbor_rows, neighbor_scores
from .report.predictions import NEIGHBORS
from .report.tables import aligned
from .wording import NEIGHBOR_METRICS, RANDOM_NEIGHBOR

if TYPE_CHECKING:
    from .runs.run import Run


@torch.no_grad()
def encode(encoder, clips, accelerator, batch_size: int, num_workers: int) -> list[dict[str, Any]]:
    """Features and label of each readable clip, which `neighbor_scores` takes; every process encodes all clips."""
    was_training = encoder.training
    encoder.eval()
    rows = []
    loader = evaluation_loader(clips, batch_size, 1, 0, num_workers)
    for batch in with_progress(loader, "nearest neighbors", "batch", plural="batches"):
        if "pixel_values" not in batch:
            continue
        with accelerator.autocast():
            outputs = encoder(*(batch[name].to(accelerator.device) for name in ("pixel_values", "input_features")))
        rows += neighbor_rows(outputs, batch["labels"])
    encoder.train(was_training)
    return rows


def score_neighbors(run: "Run") -> None:
    """Print the nearest-neighbor scores of a run's test clips and write them into its folder."""
    optim, data, trainer = run.recipe.optim, run.recipe.data, run.trainer
    encoder, accelerator = trainer.model.deepavfusion, trainer.accelerator
    clips = encode(encoder, run.final.clips, accelerator, optim.batch_size, data.workers)
    found = neighbor_scores(clips)
    rows = [["stream", *(NEIGHBOR_METRICS[name] for name in found["chance"])]]
    titles = {name: RANDOM_NEIGHBOR if name == "chance" else name for name in found}
    rows += [[titles[name], *(f"{100 * value:.1f} %" for value in scores.values())] for name, scores in found.items()]
    run.progress.print(aligned(rows))
    run.predictions[NEIGHBORS] = clips
    if run.processes.is_main_process:
        write_atomically(run.folder.work / f"{NEIGHBORS}.json", json.dumps(found, indent=2) + "\n")


@command("deepavfusion probe")
def main(argv: list[str]) -> int:
    """Run the command; returns the exit code (see the module's docstring)."""
    return train_from_recipe("probe", argv, __doc__, before=score_neighbors)


if __name__ == "__main__":
    sys.exit(main())
