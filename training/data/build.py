"""From the `data` section of a recipe to the data set that it names."""

from typing import Any

from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
)
from deepavfusion.inference.jobs.progress import announced
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.ranges_deepavfusion import COUNT
from deepavfusion_cli.paths import no_data_path

from .checked import check_command
from .clips import ClipDataset
from .sources import DATA_SETS, Request, with_defaults

# Task -> the model whose view its samples have. Pre-training and retrieval use that of recognition.
MODELS = {
    "recognition": DeepAVFusionForAudioVisualClassification,
    "separation": DeepAVFusionForSourceSeparation,
    "segmentation": DeepAVFusionForSemanticSegmentation,
    "localization": DeepAVFusionForSoundLocalization,
}
TASKS = tuple(MODELS)
SPLITS = ("train", "validation", "test")
_SIZES = {"train_size", "eval_size"}
_SCENES = {
    *("difficulty", "min_objects", "max_objects", "max_sounding", "noise", "motion", "coupling", "things"),
    "scene_seed",
}


def data_sets(task: str | None = None, option: str | None = None) -> tuple[str, ...]:
    """Names of the data sets that support a task of `build_dataset`, or that take an option of `data_cfg`."""
    names = ("scenes", *DATA_SETS)
    if task is not None:
        names = tuple(name for name in names if task in _tasks(name))
    return names if option is None else tuple(name for name in names if option in _options(name))


def _tasks(name: str) -> tuple[str, ...]:
    return TASKS if name == "scenes" else DATA_SETS[name].tasks


def _options(name: str) -> set[str]:
    """Options of a data set besides its name."""
    return _SIZES | (_SCENES | {"cache_dir", "augment"} if name == "scenes" else {"path"} | DATA_SETS[name].options)


def build_dataset(
    data_cfg: dict[str, Any],
    model_config,
    split: str,
    train: bool,
    seed: int,
    task: str = "recognition",
    semantic: bool = False,
    foreign_sounds: bool = True,
) -> ClipDataset:
    """Build the data set that a recipe's `data` section names, as inputs of a model.

    Args:
        data_cfg: `name`, `path` (except for scenes), `train_size` and `eval_size` (maximum numbers of items; of files
            the first in an order that depends on their names), and the options of the data set; keys whose value is
            None count as absent:

            - scenes: `cache_dir`, `augment`, `difficulty`, `min_objects`, `max_objects`, `max_sounding`, `noise`,
              `motion`, `coupling`, `things` (folder of cut-outs with sounds), `scene_seed`;
            - folder: `annotations` (csv or jsonl), `validation_fraction` (0.1);
            - vggsound, vggsound_music: `annotations` (vggsound.csv), `validation_fraction`, `train_list`, `test_list`
              (files that name the clips of the split), `drop_overlap` (leave out training clips that are test clips);
            - audioset: `subset` (of the training clips: balanced, unbalanced or all), `validation_fraction`;
            - music: `subset` (solo, solo21 or music), `validation_fraction`;
            - avsbench: `subset` (s4, ms3 or avss), `train_list`, `test_list` (of the older release);
            - vggss: `annotations` (vggss.json), `validation_fraction`, `train_list`, `test_list`, `drop_overlap`;
            - shards: `validation_fraction`, `cache_dir` and `cache_gb` (folder of downloads, and its largest size);
            - flickr_soundnet: as vggss, without `annotations`;
            - all of files but shards: `checked_list` (list of usable clips that `deepavfusion data check` wrote);
            - all of files: `temporal_jitter` (True: training draws windows and frames in every epoch); where clips are
              videos also `windows_per_clip`, `seconds_per_window` (number of windows in an epoch).
        model_config: A `DeepAVFusionConfig`, which determines image size, frames, mel bins and spectrogram length.
        split: `"train"`, `"validation"` or `"test"`. Most data sets have validation clips only where
            `validation_fraction` holds out a part of the training clips. A folder without splits holds out that
            fraction, for validation and test alike.
        train: Whether to augment.
        seed: Seed of the augmentations, and of the partners of training mixtures.
        task: `"recognition"` (also for pre-training and retrieval), `"separation"`, `"segmentation"` or
            `"localization"`, which determines the targets of the samples.
        semantic: Whether segmentation has classes.
        foreign_sounds: For segmentation and localization on scenes: whether frames also come with the audio of other
            scenes.

    Raises:
        ValueError: Unknown names or options, sizes below 1, a task that the data set does not support, a missing path,
            a split without clips.
        FileNotFoundError: The data set is not at its path.
    """
    options = {key: value for key, value in data_cfg.items() if value is not None}
    name = options.get("name")
    if name not in data_sets():
        raise ValueError(f"data.name must be one of {', '.join(data_sets())}, got {name!r}.")
    valid = _options(name)
    if unknown := sorted(options.keys() - valid - {"name"}):
        raise ValueError(
            f"Unknown option data.{unknown[0]} for dataset {name!r}. Valid options: {', '.join(sorted(valid))}."
        )
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
    if task not in _tasks(name):
        supporting = f" Datasets for {task}: {', '.join(data_sets(task))}." if task in TASKS else ""
        raise ValueError(f"Dataset {name!r} supports {' and '.join(_tasks(name))}, not {task!r}.{supporting}")
    processor = DeepAVFusionProcessor.from_model(MODELS[task], model_config)
    for key in sorted(_SIZES & options.keys()):
        COUNT.check(f"data.{key}", options[key])
    size = options.get("train_size" if split == "train" else "eval_size")
    if name == "scenes":
        return _build_scenes(options, processor, model_config, split, size, train, seed, task, semantic, foreign_sounds)
    if reason := no_data_path(name, options.get("path")):
        raise ValueError(reason)
    with announced(f"listing the {split} clips of {name} at {options['path']}"):
        request = Request(with_defaults(options), split, train, seed, task, semantic, size, processor)
        clips = DATA_SETS[name].build(request)
    clips.check = check_command(options)
    return clips


def _build_scenes(
    options, processor, model_config, split, size, train, seed, task, semantic, foreign_sounds
) -> ClipDataset:
    from .scenes import SceneClips, ScenesConfig, SceneTask

    settings = {"seed" if key == "scene_seed" else key: options[key] for key in _SCENES & options.keys()}
    if "things" in settings:
        settings.pop("coupling", None)  # links are between properties of generated objects
    side = model_config.image_size
    config = ScenesConfig(
        image_size=side if isinstance(side, int) else tuple(side),
        seconds=processor.feature_extractor.seconds,
        sampling_rate=processor.feature_extractor.sampling_rate,
        num_frames=model_config.num_frames,
        **settings,
    )
    size = size or (10_000 if split == "train" else 1_000)
    common = (config, processor, split, size, train, seed, options.get("cache_dir"), options.get("augment", True))
    if task == "recognition":
        return SceneClips(*common)
    return SceneTask(*common, task=task, semantic=semantic, foreign_sounds=foreign_sounds)


__all__ = ["MODELS", "SPLITS", "TASKS", "build_dataset", "data_sets"]
