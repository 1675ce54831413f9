"""Metrics of the five tasks as functions of arrays; the folders beside hold them as modules of `evaluate`.

    from deepavfusion.training import metrics

    metric = metrics.load("source_separation")
    metric.add_batch(predictions=estimates, references=sources)
    metric.compute()

`evaluate` is an extra (`pip install deepavfusion[eval]`); the functions do not need it. No network is used: the modules
are files of this package.
"""

from pathlib import Path

MODULES = (
    "audio_visual_classification",
    "audio_visual_retrieval",
    "audio_visual_segmentation",
    "sound_localization",
    "source_separation",
)


def module_path(name: str) -> Path:
    """Path of a metric's script, which `evaluate.load` takes as well.

    Raises:
        ValueError: for a name that is not in `MODULES`.
    """
    if name not in MODULES:
        raise ValueError(f"There is no metric {name!r}: expected one of {', '.join(MODULES)}.")
    return Path(__file__).parent / name / f"{name}.py"


def load(name: str, config_name: str | None = None, **options):
    """
    One of `MODULES` as an `evaluate.Metric`, without the network.

    Args:
        name: of the metric.
        config_name: kind of inputs, where the metric knows several: `"single_label"` or `"multi_label"` for
            classification, `"binary"` or `"semantic"` for segmentation. The first is the default.
        options: of the metric (`threshold` of localization), and of `evaluate.load`: `num_process`, `process_id`,
            `experiment_id`, `cache_dir`. What is kept of the samples stays in memory, unless several processes
            exchange it by files or `keep_in_memory=False` is given.

    Raises:
        ValueError: for an unknown name or kind.
        ImportError: where `evaluate` is not installed.
    """
    path = module_path(name)
    try:
        import evaluate
    except ImportError as error:
        raise ImportError(f"The metric {name} needs `evaluate`: pip install deepavfusion[eval]") from error
    if options.get("num_process", 1) == 1:
        # Several runs at once must not wait for each other's files, nor leave their locks behind.
        options.setdefault("keep_in_memory", True)
    return evaluate.load(str(path), config_name, **options)


__all__ = ["MODULES", "load", "module_path"]
