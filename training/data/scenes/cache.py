"""Sounding scenes kept on disk: written once, whole or not at all, and read through memory maps."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .config import NUM_CLASSES, ScenesConfig
from .generation import generate_clip

_FORMAT = 1


class SceneCache:
    """
    Scenes that `cache_scenes` wrote. Item k is (frames (T, H, W, 3) uint8, waveform (N,) float32, labels (16,)
    float32), in the order of `indices`; arrays are read-only views of the files.

    Raises:
        FileNotFoundError: There is no cache at `path`.
        ValueError: What is there was made with other settings or another layout, or is damaged.
    """

    def __init__(self, path: str | Path, config: ScenesConfig | None = None):
        self.path = Path(path)
        about = self.path / "scenes.json"
        if not about.is_file():
            raise FileNotFoundError(f"no cached scenes at {self.path}: expected a file {about.name} in it")
        meta = json.loads(about.read_text())
        if meta.get("format") != _FORMAT:
            raise ValueError(f"{about}: expected layout {_FORMAT}, got {meta.get('format')}; make the cache anew")
        self.config = ScenesConfig(**meta["config"])
        if config is not None and config != self.config:
            raise ValueError(f"{about} holds scenes of {self.config}, expected {config}")
        self.indices = np.load(self.path / "indices.npy")
        self.frames = np.load(self.path / "frames.npy", mmap_mode="r")
        self.waveforms = np.load(self.path / "waveforms.npy", mmap_mode="r")
        self.labels = np.load(self.path / "labels.npy")
        for name in ("frames", "waveforms", "labels"):
            if len(getattr(self, name)) != len(self.indices):
                raise ValueError(
                    f"{self.path}: {name} has {len(getattr(self, name))} rows, expected {len(self.indices)}"
                )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.frames[k], self.waveforms[k], self.labels[k]


def cache_scenes(config: ScenesConfig, indices: Sequence[int], path: str | Path) -> SceneCache:
    """
    Make the scenes `indices` and keep them at `path`, unless they are there already.

    The files are written beside `path` and moved into place by one rename, so that `path` is never half a cache,
    whenever the process dies and however many processes do it at once.
    """
    path = Path(path)
    wanted = np.fromiter(indices, np.int64)
    if path.exists():
        cache = SceneCache(path, config)
        if not np.array_equal(cache.indices, wanted):
            raise ValueError(
                f"{path} holds {len(cache)} other scenes than the {len(wanted)} asked for; choose another folder"
            )
        return cache
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        height, width = config.size
        frames = np.lib.format.open_memmap(
            draft / "frames.npy", "w+", np.uint8, (len(wanted), config.num_frames, height, width, 3)
        )
        waveforms = np.lib.format.open_memmap(
            draft / "waveforms.npy", "w+", np.float32, (len(wanted), config.num_samples)
        )
        labels = np.zeros((len(wanted), NUM_CLASSES), np.float32)
        for k, index in enumerate(wanted.tolist()):
            frames[k], waveforms[k], classes = generate_clip(config, index)
            labels[k, classes] = 1
        frames.flush()
        waveforms.flush()
        np.save(draft / "labels.npy", labels)
        np.save(draft / "indices.npy", wanted)
        (draft / "scenes.json").write_text(json.dumps({"format": _FORMAT, "config": config.to_dict()}, indent=1))
        try:
            os.rename(draft, path)
        except OSError:
            # Another process finished first: its cache is as good, if it is one (else SceneCache says what it is).
            if not path.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return cache_scenes(config, wanted, path)
