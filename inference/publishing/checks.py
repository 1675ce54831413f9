"""Checks of a model's folder before it is published: each returns what is wrong, one line for each fault."""

import ast
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, parse_eval_result_entries
from safetensors import safe_open

from deepavfusion_cli.paths import EVALUATION_FILE

from ..files import damaged_file
from .contents import CARD, Contents

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PLACEHOLDERS = ("[More Information Needed]", "More information needed", "Model Card for Model ID")
_STREAM = re.compile(r"^1-NN .*\((\w+)\)$")
_MARGIN = 5.001e-5  # cards round to four decimals, and floats differ from decimals


def find_faults(contents: Contents, card: str, license: str | None = None) -> list[str]:
    """Everything that is wrong with what is to be published, except what only loading it shows.

    Args:
        contents: Files of the folder.
        card: Text of the card; empty if there is none.
        license: License that is given beside the card.
    """
    if fault := damaged_file(contents.folder, contents.published):
        return [fault]
    missing = [f"{CARD} or report.html refers to {name}, which is not there" for name in contents.missing]
    return [
        *_weights(contents),
        *_code(contents),
        *missing,
        *_card(card, license),
        *_numbers(contents, card),
    ]


def _weights(contents: Contents) -> Iterator[str]:
    published = contents.published
    if "config.json" not in published:
        yield "config.json is not there: save the model by save_pretrained"
    if "processor_config.json" not in published:
        yield "processor_config.json is not there: save the processor beside the model, processor.save_pretrained(DIR)"
    if _INDEX in published:
        shards = set(json.loads((contents.folder / _INDEX).read_text(encoding="utf-8")).get("weight_map", {}).values())
        absent = sorted(shards - set(published))
        if absent:
            yield f"{_INDEX} names {', '.join(absent[:3])}, which {'are' if len(absent) > 1 else 'is'} not there"
        if _WEIGHTS in published:
            yield f"{_WEIGHTS} and {_INDEX} are both there: remove those of the earlier model"
    elif _WEIGHTS not in published:
        yield f"{_WEIGHTS} is not there: save the model by save_pretrained, which writes safetensors"
    for name in published:
        if name.endswith(".safetensors"):
            with safe_open(contents.folder / name, "pt") as file:
                if not file.keys():
                    yield f"{name} holds no tensors"


def _code(contents: Contents) -> Iterator[str]:
    """Files of code that are named, by a configuration or by other code, but missing."""
    present = {Path(name).stem for name in contents.published if name.endswith(".py")}
    named: dict[str, str] = {}
    for config in ("config.json", "processor_config.json"):
        if config in contents.published:
            settings = json.loads((contents.folder / config).read_text(encoding="utf-8"))
            if not settings.get("auto_map"):
                yield f"{config} has no auto_map, by which Auto classes find the code: save again with this package"
            named |= {reference.partition(".")[0]: config for reference in _references(settings)}
    for name in contents.published:
        if name.endswith(".py"):
            named |= dict.fromkeys(_relative_imports(contents.folder / name), name)
    for module, origin in sorted(named.items()):
        if module not in present:
            yield f"{module}.py, which {origin} refers to, is not there: save model and processor again"


def _references(settings: Any) -> Iterator[str]:
    """References `module.Class` to code in a configuration, and in those inside it."""
    for key, value in settings.items():
        if key == "auto_map":
            for reference in value.values():
                yield from reference if isinstance(reference, list | tuple) else [reference]
        elif key == "custom_pipelines":
            yield from (entry["impl"] for entry in value.values())
        elif isinstance(value, dict):
            yield from _references(value)


def _relative_imports(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module}


def _card(card: str, license: str | None) -> Iterator[str]:
    """Fields of the metadata that the Hub needs to find, load and filter the model."""
    if not card.strip():
        yield f"{CARD} is not there: write a model card"
        return
    try:
        data = ModelCard(card).data
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        yield f"{CARD}: its metadata cannot be read ({' '.join(str(error).split())})"
        return
    fields = data.to_dict()
    stated = fields.get("license")
    if not stated and not license:
        yield f"{CARD} names no license: add `license: ...` to its metadata, or pass --license"
    if stated and license and stated != license:
        yield f"{CARD} names the license {stated}, --license {license}: correct one of them"
    if fields.get("library_name") != "transformers":
        yield f"{CARD}: expected `library_name: transformers`, got {fields.get('library_name')!r}"
    if not fields.get("pipeline_tag"):
        yield f"{CARD} has no pipeline_tag: add the closest task of the Hub, e.g. video-classification"
    if "custom_code" not in (fields.get("tags") or ()):
        yield f"{CARD}: expected custom_code among its tags, for models that need trust_remote_code"
    body = ModelCard(card, ignore_metadata_errors=True).text
    if found := next((text for text in _PLACEHOLDERS if text in body), None):
        yield f"{CARD} still holds the placeholder {found!r}"
    if not re.search(r"^```python$", body, re.MULTILINE):
        yield f"{CARD} shows no Python code that loads the model"


def _numbers(contents: Contents, card: str) -> Iterator[str]:
    """Results in the metadata of the card, and in .eval_results, that no file of results holds."""
    try:
        results = ModelCard(card).data.get("eval_results") or [] if card.strip() else []
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        return  # reported as the card's
    measured = _measured(contents)
    where = ", ".join(sorted(measured)) or f"{EVALUATION_FILE}, eval_results.json or trainer_state.json"
    for result in results:
        key = metric_key(result)
        values = [value for numbers in measured.values() for name, value in numbers if _names(name, key)]
        if not _is_number(result.metric_value) or not any(_equal(result.metric_value, value) for value in values):
            found = f"found {_shown(values)}" if values else "found none"
            yield f"{CARD} gives {key} = {result.metric_value}: expected this result in {where}, {found}"
    everything = [value for numbers in measured.values() for _, value in numbers]
    for name in contents.published:
        if name.startswith(".eval_results/"):
            try:
                entries = parse_eval_result_entries(yaml.safe_load((contents.folder / name).read_text("utf-8")))
            except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
                yield f"{name} cannot be read ({' '.join(str(error).split())})"
                continue
            for entry in entries:
                # Leaderboards ask for fractions or for percentages.
                if not any(_equal(entry.value, scale * value) for value in everything for scale in (1, 100)):
                    yield f"{name} gives {entry.task_id} = {entry.value}: expected this result in {where}, found none"


def metric_key(result: EvalResult) -> str:
    """Name in evaluation.json of a result in a card: fusion_accuracy of "1-NN accuracy (fusion)"."""
    stream = _STREAM.search(result.metric_name or "")
    return f"{stream[1]}_{result.metric_type}" if stream else result.metric_type


def _measured(contents: Contents) -> dict[str, list[tuple[str, float]]]:
    """File of results -> names and values of the numbers in it."""
    found = {}
    for name in contents.published:
        if name in (EVALUATION_FILE, "all_results.json", "eval_results.json", "test_results.json"):
            content = json.loads((contents.folder / name).read_text(encoding="utf-8"))
            found[name] = list(_leaves(content.get("metrics", content)))
        elif name == "trainer_state.json":
            history = json.loads((contents.folder / name).read_text(encoding="utf-8")).get("log_history", [])
            found[name] = [leaf for entry in history for leaf in _leaves(entry)]
    return found


def _leaves(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, str(key))
    elif _is_number(content):
        yield name, content


def _names(name: str, key: str) -> bool:
    return name in (key, f"eval_{key}", f"test_{key}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(value: Any, other: float) -> bool:
    return _is_number(value) and math.isclose(value, other, rel_tol=1e-6, abs_tol=_MARGIN)


def _shown(values: Iterable[float]) -> str:
    return " and ".join(f"{value:.6g}" for value in list(values)[-3:])


def private_paths(contents: Contents) -> list[str]:
    """Text files that are published and hold absolute paths of this machine: of its user, the model or its data."""
    places = {str(Path.home()), str(contents.folder.resolve().parent), *_data_folders(contents.folder)} - {"/"}
    found = []
    for name in contents.published:
        if name.endswith((".json", ".jsonl", ".md", ".html", ".yaml")):
            text = (contents.folder / name).read_text(encoding="utf-8", errors="replace")
            if any(re.search(rf"(?<![\w/]){re.escape(place)}(?=[/\"'\s])", text) for place in places):
                found.append(name)
    return found


def _data_folders(folder: Path) -> set[str]:
    """The folder of the data that the recipe of a run names, as the recipe names it and absolute."""
    try:
        path = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["data"]["path"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return set()
    if not isinstance(path, str) or "://" in path:
        return set()
    return {place for place in (path.rstrip("/"), str(Path(path).resolve())) if place.startswith("/")}


__all__ = ["find_faults", "metric_key", "private_paths"]
