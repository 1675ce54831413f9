"""The sounds of things."""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from deepavfusion.processors import MediaError, load_clip
from deepavfusion.processors.feature_extraction_deepavfusion import resample, to_mono

from .folder import ThingFolder, load_all

MAX_SECONDS = 20.0  # of a longer sound, its middle is used
STEP = 80  # samples between two positions at which a window of a sound may start
_FADE = 0.005  # seconds at both ends of a sound
_SILENCE = 1e-4  # peak of a sound that counts as silent


@dataclass(frozen=True, eq=False)
class Recording:
    """The sound of a thing, a loop.

    Attributes:
        waveform: (K * STEP,) float32.
        energy: (K + 1,) float64, the energy of the waveform before each multiple of STEP.
    """

    waveform: np.ndarray
    energy: np.ndarray

    def energy_before(self, steps: np.ndarray) -> np.ndarray:
        """The energy of the loop from its start to each of these numbers of steps."""
        turns, rest = np.divmod(steps, len(self.energy) - 1)
        return turns * self.energy[-1] + self.energy[rest]


@lru_cache(maxsize=2)
def load_recordings(folder: ThingFolder, sampling_rate: int) -> tuple[Recording, ...]:
    """Decode the sounds of all things as mono.

    Args:
        folder: The things.
        sampling_rate: Sampling rate of the result in Hz.

    Raises:
        ValueError: If a file cannot be decoded, has no audio, or is silent.
    """
    return load_all(folder.sounds, partial(_load_recording, sampling_rate=sampling_rate))


def _load_recording(path: str, sampling_rate: int) -> Recording:
    try:
        clip = load_clip(path, seconds=MAX_SECONDS, require="audio")
    except MediaError as error:
        raise ValueError(str(error).rstrip(".")) from error
    waveform = resample(to_mono(clip.waveform), clip.sampling_rate, sampling_rate).numpy()
    if np.abs(waveform).max() < _SILENCE:
        raise ValueError(f"{path}: expected a sound, but it is silent")
    # Where the loop starts again, nothing clicks.
    position = np.arange(len(waveform)) + 0.5
    waveform = waveform * np.clip(np.minimum(position, position[::-1]) / (_FADE * sampling_rate), 0, 1)
    waveform = np.pad(waveform, (0, -len(waveform) % STEP)).astype(np.float32)
    energy = np.cumsum((waveform.astype(np.float64) ** 2).reshape(-1, STEP).sum(1))
    return Recording(waveform, np.concatenate([[0.0], energy]))


__all__ = ["MAX_SECONDS", "STEP", "Recording", "load_recordings"]
