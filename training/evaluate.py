"""Evaluation of a fine-tuned model on a data set, with its protocol, its controls and a report to look at.

    deepavfusion evaluate scenes_separation --model runs/scenes_separation
    deepavfusion evaluate vggsound_finetune --model ORG/NAME data.path=/data/vggsound

RECIPE says which task and which data; of its training settings precision and attention are used. evaluation.json
(numbers, protocol, versions, what was skipped) and report.html (pictures and sounds; opens anywhere) go to --out.

Exit codes: 0 done; 2 for a recipe or model that cannot be used; 1 for too many unreadable clips.
"""

import argparse
from pathlib import Path

from accelerate import Accelerator

from deepavfusion.inference.common import quiet_library
from deepavfusion.processors import DeepAVFusionProcessor

from .config.finetune_arguments import FinetuneArguments, load_finetune_arguments
from .config.recipe import RecipeError, recipe_names
from .finetune import guarded, summary
from .runs.finetuning import build_clips, evaluate_finally, write_report
from .runs.folder import check_origin
from .tasks import TASKS


def load_task_model(recipe: FinetuneArguments, origin: str):
    """The task's model of a folder or Hub name; one that lacks weights of encoder or head is refused."""
    task = TASKS[recipe.task.name]
    check_origin(origin, "--model")
    try:
        with quiet_library():
            model, info = task.MODEL.from_pretrained(origin, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise RecipeError(f"--model {origin} cannot be used: {error}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise RecipeError(
            f"--model {origin} was not fine-tuned for {task.NAME}: it lacks {len(missing)} weights, first {missing[0]}."
        )
    recipe.model.set_attention(model)
    return model.eval()


def check_labels(task, model) -> None:
    """Refuses a data set whose classes are others than the model's."""
    names = task.clips.label_names
    own = [model.config.id2label[i] for i in range(model.config.num_labels)]
    if task.NAME == "recognition" and names is not None and list(names) != own:
        different = [f"{i}: {a!r} and {b!r}" for i, (a, b) in enumerate(zip(own, names, strict=False)) if a != b]
        raise RecipeError(
            f"The model has {len(own)} classes, the data {len(names)}"
            + (f"; the first that differs is {different[0]}" if different else "")
            + "."
        )


def evaluate_model(recipe: FinetuneArguments, origin: str, out: Path, accelerator: Accelerator | None = None) -> dict:
    """Evaluates `origin` on the recipe's test split and writes the report; returns the content of evaluation.json."""
    accelerator = accelerator or Accelerator(mixed_precision=recipe.optim.mixed_precision, cpu=recipe.run.cpu)
    model = load_task_model(recipe, origin).to(accelerator.device)
    split = recipe.data.eval_split
    processor = DeepAVFusionProcessor.from_model(model)
    task = TASKS[recipe.task.name](build_clips(recipe, model.config, split, train=False), processor)
    check_labels(task, model)
    evaluation = evaluate_finally(recipe, task.clips, processor, model, accelerator)
    content = {}
    if accelerator.is_main_process:
        name = Path(origin).resolve().name if Path(origin).is_dir() else origin
        content = write_report(
            out,
            evaluation,
            title=f"{task.NAME.capitalize()}: {name}",
            model_name=name,
            split=split,
            device=accelerator.device,
        )
        print(summary(evaluation, out), flush=True)
    accelerator.wait_for_everyone()
    return content


def parser() -> argparse.ArgumentParser:
    names = ", ".join(recipe_names(FinetuneArguments))
    result = argparse.ArgumentParser(
        "deepavfusion evaluate",
        description=__doc__,
        epilog=f"recipes: {names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("recipe", metavar="RECIPE", help="name of a recipe of the package, or the path of one")
    result.add_argument("overrides", metavar="section.key=value", nargs="*", help="changes to the recipe")
    result.add_argument("--model", required=True, help="folder or Hub name of a fine-tuned model")
    result.add_argument("--out", type=Path, help="folder of the report (runs/evaluations/RECIPE)")
    return result


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code (see the module's docstring)."""
    given = parser().parse_intermixed_args(argv)

    def action() -> int:
        recipe = load_finetune_arguments(given.recipe, given.overrides)
        out = given.out or Path("runs") / "evaluations" / recipe.recipe
        evaluate_model(recipe, given.model, out)
        return 0

    return guarded("evaluate", action)


if __name__ == "__main__":
    raise SystemExit(main())
