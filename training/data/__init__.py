"""
Data sets for training. `build_dataset` makes what the training scripts read:

- `scenes`: the built-in sounding scenes; need no files, serve every task;
- `folder`: any folder of videos;
- `vggsound`, `audioset`, `music`, `vggsound_music`: labels, and mixtures for separation;
- `avsbench`: masks; `vggss`, `flickr_soundnet`: boxes.

The module of each data set says how it lies on disk.
"""

from typing import Any

from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
)
from deepavfusion.processors import DeepAVFusionProcessor

from .clips import BrokenClip, Clips, FileClips, collate_clips

__all__ = ["BrokenClip", "Clips", "FileClips", "build_dataset", "collate_clips", "data_sets"]

# Task -> the model whose view its samples are of. Pre-training and retrieval share that of recognition.
MODELS = {
    "recognition": DeepAVFusionForAudioVisualClassification,
    "separation": DeepAVFusionForSourceSeparation,
    "segmentation": DeepAVFusionForSemanticSegmentation,
    "localization": DeepAVFusionForSoundLocalization,
}
TASKS = tuple(MODELS)
SPLITS = ("train", "validation", "test")
_SIZES = {"train_size", "eval_size"}
_SCENES = {"difficulty", "min_objects", "max_objects", "max_sounding", "noise", "motion", "scene_seed"}


def data_sets(task: str | None = None, option: str | None = None) -> tuple[str, ...]:
    """Names of the data sets, those that serve a task of `build_dataset` or take an option of `data_cfg`."""
    from .sources import DATA_SETS

    names = ("scenes", *DATA_SETS)
    if task is not None:
        names = tuple(name for name in names if task in (TASKS if name == "scenes" else DATA_SETS[name].tasks))
    return names if option is None else tuple(name for name in names if option in _options(name))


def _options(name: str) -> set[str]:
    """Options that a data set takes besides its name."""
    from .sources import DATA_SETS

    return _SIZES | (_SCENES | {"cache_dir"} if name == "scenes" else {"path"} | DATA_SETS[name].keys)


def build_dataset(
    data_cfg: dict[str, Any],
    model_config,
    split: str,
    train: bool,
    seed: int,
    task: str = "recognition",
    semantic: bool = False,
    foreign_sounds: bool = True,
) -> Clips:
    """
    The data set that a recipe's `data` section names, as inputs of a model.

    Args:
        data_cfg: `name`, `path` (of all but scenes), `train_size` and `eval_size` (how many items at most; of files the
            first in an order drawn from their names), and what the name allows; keys whose value is None count as
            absent:

            - scenes: `cache_dir`, `difficulty`, `min_objects`, `max_objects`, `max_sounding`, `noise`, `motion`,
              `scene_seed`;
            - folder: `annotations` (csv or jsonl), `validation_fraction` (0.1);
            - vggsound, vggsound_music: `annotations` (vggsound.csv), `validation_fraction`, `train_list`, `test_list`
              (files that name the clips of the split), `drop_overlap` (leave out training clips that are test clips);
            - audioset: `subset` (of the training clips: balanced, unbalanced or all), `validation_fraction`;
            - music: `subset` (solo, solo21 or music), `validation_fraction`;
            - avsbench: `subset` (s4, ms3 or avss), `train_list`, `test_list` (of the older release);
            - vggss: `annotations` (vggss.json), `validation_fraction`, `train_list`, `test_list`, `drop_overlap`;
            - flickr_soundnet: as vggss, without `annotations`.
        model_config: A `DeepAVFusionConfig`: picture size, frames, mel bins and spectrogram length are its.
        split: `"train"`, `"validation"` or `"test"`. Most data sets have validation clips only where
            `validation_fraction` holds out a part of the training clips. A folder that does not say which clip is which
            holds out that share, for validation and test alike.
        train: Whether to augment.
        seed: Of the augmentations, and of the partners of training mixtures.
        task: `"recognition"` (pre-training, retrieval), `"separation"`, `"segmentation"` or `"localization"`: what the
            samples hold beside frame and sound.
        semantic: Whether segmentation names classes.
        foreign_sounds: Of scenes' segmentation and localization: whether frames also come with sounds that are not
            theirs.

    Raises:
        ValueError: Unknown names or keys, a task that the data set does not support, a missing path, a split without
            clips.
        FileNotFoundError: The data set is not at its path.
    """
    from .sources import DATA_SETS, Request

    settings = {key: value for key, value in data_cfg.items() if value is not None}
    name = settings.get("name")
    if name != "scenes" and name not in DATA_SETS:
        raise ValueError(f"data.name must be one of scenes, {', '.join(DATA_SETS)}, got {name!r}")
    allowed = _options(name)
    if unknown := sorted(settings.keys() - allowed - {"name"}):
        raise ValueError(
            f"Unknown option data.{unknown[0]} for dataset {name!r}. Valid options: {', '.join(sorted(allowed))}."
        )
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    tasks = TASKS if name == "scenes" else DATA_SETS[name].tasks
    if task not in tasks:
        able = ", ".join(data_sets(task))
        advice = f"; data sets for {task}: {able}" if task in TASKS else ""
        raise ValueError(f"{name} supports the task {' and '.join(tasks)}, not {task!r}{advice}")
    processor = DeepAVFusionProcessor.from_model(MODELS[task], model_config)
    size = settings.get("train_size" if split == "train" else "eval_size")
    if name == "scenes":
        return _scenes(settings, processor, model_config, split, size, train, seed, task, semantic, foreign_sounds)
    if "path" not in settings:
        raise ValueError(f"data.path is missing: expected the folder of the data set {name}")
    return DATA_SETS[name].build(Request(settings, split, train, seed, task, semantic, size, processor))


def _scenes(settings, processor, model_config, split, size, train, seed, task, semantic, foreign_sounds) -> Clips:
    from .scenes.clips import SceneClips
    from .scenes.config import ScenesConfig
    from .scenes.tasks import SceneTask

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
    if task == "recognition":
        return SceneClips(*rest)
    return SceneTask(*rest, task=task, semantic=semantic, foreign_sounds=foreign_sounds)
