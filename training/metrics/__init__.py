"""Metrics of the five tasks as functions of arrays, and as modules of `evaluate` in the subfolders.

    from deepavfusion.training import metrics

    metric = metrics.load("source_separation")
    metric.add_batch(predictions=estimates, references=sources)
    metric.compute()

The functions need scikit-learn (`deepavfusion[train]` or `[eval]`), the modules `evaluate` as well
(`deepavfusion[eval]`). Modules load from this package's files, without network access. `evaluate` runs copies of them
from its own cache, so they import from `deepavfusion.training.metrics` by absolute names.
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
    """Path of a metric's script, which `evaluate.load` accepts.

    Raises:
        ValueError: For a name that is not in `MODULES`.
    """
    if name not in MODULES:
        raise ValueError(f"Unknown metric {name!r}. Valid metrics: {', '.join(MODULES)}.")
    return Path(__file__).parent / name / f"{name}.py"


def load(name: str, config_name: str | None = None, **options):
    """Load one of `MODULES` as an `evaluate.Metric`, without network access.

    Args:
        name: Name of the metric.
        config_name: Configuration, for metrics that have several: `"single_label"` (default) or `"multi_label"` for
            classification, `"binary"` (default) or `"semantic"` for segmentation.
        **options: Options of the metric (`threshold` of localization) and of `evaluate.load`: `num_process`,
            `process_id`, `experiment_id`, `cache_dir`. Statistics of the samples stay in memory unless several
            processes exchange them through files or `keep_in_memory=False` is given.

    Raises:
        ValueError: For an unknown name or configuration.
        ImportError: If `evaluate` is not installed.
    """
    path = module_path(name)
    try:
        import evaluate
    except ImportError as error:
        raise ImportError(f"The metric {name} requires `evaluate`: pip install evaluate scikit-learn") from error
    if options.get("num_process", 1) == 1:
        # Concurrent runs must not wait for each other's files, nor leave locks behind.
        options.setdefault("keep_in_memory", True)
    return evaluate.load(str(path), config_name, **options)


__all__ = ["MODULES", "load", "module_path"]
