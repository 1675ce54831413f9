"""
Data sets for training. `build_dataset` makes what the training scripts read:

- `scenes`: the built-in sounding scenes; needs no files;
- `folder`: any folder of videos;
- `vggsound`, `audioset`: those data sets in their published layouts.
"""

from pathlib import Path
from typing import Any

from deepavfusion.training.data.clips import BrokenClip, Clips, FileClips, collate_clips

__all__ = ["BrokenClip", "Clips", "FileClips", "build_dataset", "collate_clips"]

TASKS = ("recognition", "separation", "segmentation", "localization")
SPLITS = ("train", "validation", "test")
_COMMON = {"name", "path", "train_size", "eval_size", "cache_dir"}
_SCENES = {"difficulty", "min_objects", "max_objects", "max_sounding", "noise", "motion", "scene_seed"}
_KEYS = {
    "scenes": _COMMON - {"path"} | _SCENES,
    "folder": _COMMON - {"cache_dir"} | {"annotations", "validation_share"},
    "vggsound": _COMMON - {"cache_dir"} | {"annotations"},
    "audioset": _COMMON - {"cache_dir"},
}


def build_dataset(
    data_cfg: dict[str, Any],
    model_config,
    split: str,
    train: bool,
    seed: int,
    task: str = "recognition",
    semantic: bool = False,
) -> Clips:
    """
    The data set that a recipe's `data` section names, as inputs of a model.

    Args:
        data_cfg: `name` (scenes, folder, vggsound or audioset), `path` (of all but scenes), `train_size` and
            `eval_size` (how many clips at most; of files the first in an order drawn from their names), and what the
            name allows: scenes take `cache_dir`, `difficulty`, `min_objects`, `max_objects`, `max_sounding`, `noise`,
            `motion` and `scene_seed`; folders `annotations` and `validation_share` (0.1); vggsound `annotations`. Keys
            whose value is None count as absent.
        model_config: A `DeepAVFusionConfig`: picture size, frames, mel bins and spectrogram length are its.
        split: `"train"`, `"validation"` or `"test"`. VGGSound and AudioSet have no validation clips. A folder that does
            not say which clip is which holds out `validation_share` of them, for validation and test alike.
        train: Whether to augment.
        seed: Of the augmentations.
        task: `"recognition"` (pre-training, retrieval), `"separation"`, `"segmentation"` or `"localization"`: what the
            samples hold beside frame and sound. Files of videos have labels alone.
        semantic: Whether segmentation names classes.

    Raises:
        ValueError: Unknown names or keys, a missing path, a split without clips.
    """
    from deepavfusion.processors import DeepAVFusionProcessor

    settings = {key: value for key, value in data_cfg.items() if value is not None}
    name = settings.pop("name", None)
    if name not in _KEYS:
        raise ValueError(f"data.name must be one of {', '.join(_KEYS)}, got {name!r}")
    if unknown := sorted(settings.keys() - _KEYS[name]):
        raise ValueError(f"data.{unknown[0]} is no setting of {name}: expected {', '.join(sorted(_KEYS[name]))}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    processor = DeepAVFusionProcessor.from_config(model_config)
    size = settings.get("train_size" if split == "train" else "eval_size")
    if name == "scenes":
        return _scenes(settings, processor, model_config, split, size, train, seed, task, semantic)
    if "path" not in settings:
        raise ValueError(f"data.path is missing: expected the folder of the data set {name}")
    rows = _rows(name, settings, split)
    return FileClips(rows, processor, train=train, seed=seed, size=size, name=f"{name}, split {split}")


def _scenes(settings, processor, model_config, split, size, train, seed, task, semantic) -> Clips:
    from deepavfusion.training.data.scenes_clips import SceneClips
    from deepavfusion.training.data.scenes_config import ScenesConfig
    from deepavfusion.training.data.scenes_tasks import SceneTask

    world = {"seed" if key == "scene_seed" else key: settings[key] for key in _SCENES & settings.keys()}
    side = model_config.image_size
    config = ScenesConfig(
        image_size=side if isinstance(side, int) else tuple(side),
        seconds=processor.feature_extractor.seconds,
        sampling_rate=processor.feature_extractor.sampling_rate,
        num_frames=model_config.num_frames,
        **world,
    )
    size = size or (10_000 if split == "train" else 1_000)
    rest = (config, processor, split, size, train, seed, settings.get("cache_dir"))
    return SceneClips(*rest) if task == "recognition" else SceneTask(*rest, task=task, semantic=semantic)


def _rows(name: str, settings: dict, split: str):
    """The rows of a data set on disk that belong to a split."""
    from deepavfusion.training.data.audioset import read_audioset
    from deepavfusion.training.data.folders import hold_out, read_folder
    from deepavfusion.training.data.vggsound import read_vggsound

    path = Path(settings["path"])
    if name != "folder" and split == "validation":
        raise ValueError(f"{name} has no validation split: expected train or test")
    if name == "vggsound":
        return read_vggsound(path, split, settings.get("annotations"))
    if name == "audioset":
        return read_audioset(path, ("eval",) if split == "test" else ("balanced_train", "unbalanced_train"))
    rows = read_folder(path, settings.get("annotations"))
    there = sorted({value for value in rows["split"] if value is not None})
    if there:
        chosen = [i for i, value in enumerate(rows["split"]) if value == split]
        reason = f"its splits are {', '.join(there)}"
    else:
        chosen = hold_out(rows["path"], settings.get("validation_share", 0.1), split != "train")
        reason = f"it has {len(rows)} in all"
    if not chosen:
        raise ValueError(f"{path} has no clips of the split {split!r}: {reason}")
    return rows.select(chosen)
