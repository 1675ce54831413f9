"""Audio of the sounding scenes: eight timbre families, each a pattern in time and frequency.

A source is a harmonic tone (a wave table read at the pitch's phase, cross-faded with a second one) plus noise. The
family determines how pitch, loudness, formant or noise move within a cycle; the pitch (two octaves), the rate
and its drift, the phase, the depth, the spectral tilt, the formants, odd against even harmonics, vibrato, tremolo,
noise and level are drawn anew for every source and vary more within a family than between families.
"""

from functools import lru_cache

import numpy as np

from .config import ScenesConfig
from .things import STEP, Recording

NUM_SOURCE_UNIFORMS = 40
_CONTROL_STEP = 80  # samples between control points; linear in between
_TABLE_SIZE = 2048
_NOISE_SIZE = 1 << 17
_FULL_LEVEL = 0.14  # RMS of a source at 0 dB
_FADE_IN, _FADE_OUT = 0.03, 0.05  # seconds

# Within-family variation per difficulty, as (low, high) of uniform draws; at most so many harmonics.
_RANGES = {
    "easy": {"pitch": (8.3, 9.3), "depth": (0.8, 1.0), "rate": (3.4, 4.2), "drift": 0.05, "noise": (0.01, 0.03),
             "tremolo": (0.0, 0.1), "vibrato": (0.0, 0.01), "level": (-4.0, 0.0), "background": (0.005, 0.02),
             "harmonics": 6},
    "standard": {"pitch": (7.65, 9.65), "depth": (0.5, 1.0), "rate": (2.6, 5.2), "drift": 0.2, "noise": (0.01, 0.15),
                 "tremolo": (0.0, 0.5), "vibrato": (0.0, 0.035), "level": (-12.0, 0.0), "background": (0.01, 0.12),
                 "harmonics": 40},
    "hard": {"pitch": (7.65, 9.65), "depth": (0.3, 0.8), "rate": (2.2, 6.0), "drift": 0.35, "noise": (0.02, 0.3),
             "tremolo": (0.0, 0.7), "vibrato": (0.0, 0.06), "level": (-15.0, 0.0), "background": (0.05, 0.3),
             "harmonics": 40},
}  # fmt: skip


@lru_cache(maxsize=1)
def _noise_tables() -> np.ndarray:
    """Periodic Gaussian noises (5, 2^17) of unit RMS whose power falls by 0, 3, 6 dB an octave, or lies in a band."""
    rng = np.random.Generator(np.random.Philox(key=0x5EED))
    spectrum = np.fft.rfft(rng.standard_normal((5, _NOISE_SIZE)))
    f = np.maximum(np.fft.rfftfreq(_NOISE_SIZE), 20 / 16000)
    gains = [np.ones_like(f), f**-0.5, f**-1.0]
    gains += [np.exp(-0.5 * (np.log2(f * 16000 / center) / 0.8) ** 2) for center in (700.0, 2500.0)]
    noise = np.fft.irfft(spectrum * np.stack(gains), n=_NOISE_SIZE)
    return (noise / noise.std(axis=1, keepdims=True)).astype(np.float32)


def _noise(kind: float, offset: float, length: int) -> np.ndarray:
    table = _noise_tables()[int(kind * 5)]
    start = int(offset * _NOISE_SIZE)
    if start + length <= _NOISE_SIZE:
        return table[start : start + length]
    return (
        np.resize(np.concatenate([table[start:], table]), length)
        if length > _NOISE_SIZE
        else np.concatenate([table[start:], table[: start + length - _NOISE_SIZE]])
    )


_RAMP = np.arange(_CONTROL_STEP, dtype=np.float32) / _CONTROL_STEP


def _upsample(control: np.ndarray, length: int) -> np.ndarray:
    """Control points (M,) every `_CONTROL_STEP` samples to `length` samples, linear in between."""
    c = control.astype(np.float32)
    return (c[:-1, None] + (c[1:] - c[:-1])[:, None] * _RAMP).reshape(-1)[:length]


def _smooth_gate(x: np.ndarray, start: float, stop: float, edge: float) -> np.ndarray:
    """1 within [start, stop] of the cycle position x, 0 outside, with linear flanks of width `edge` inside it."""
    return np.clip(np.minimum((x - start) / edge, (stop - x) / edge), 0.0, 1.0)


def _wave_table(
    harmonics: int, tilt: float, odd: float, formant: float, width: float, phases: np.ndarray
) -> np.ndarray:
    """One period of a tone of unit RMS. `formant`: harmonic number of the spectral peak; `odd`: weight of even ones."""
    h = np.arange(1, harmonics + 1)
    amplitude = h**-tilt * (0.15 + np.exp(-0.5 * (np.log2(h / formant) / width) ** 2))
    amplitude[1::2] *= odd
    amplitude /= np.sqrt(0.5 * np.sum(amplitude**2))
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, np.complex64)
    spectrum[1 : harmonics + 1] = amplitude * np.exp(1j * phases[:harmonics]) * (_TABLE_SIZE / 2)
    return np.fft.irfft(spectrum, n=_TABLE_SIZE).astype(np.float32)


@lru_cache(maxsize=1)
def _phases() -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=0xFA5E)).uniform(0, 2 * np.pi, (64, 64))


def gate(u: np.ndarray, seconds: float) -> tuple[float, float]:
    """Onset and end of a source in seconds, from its uniforms."""
    return 0.15 * seconds * float(u[0]), seconds * (1 - 0.15 * float(u[1]))


def synthesize(timbre: int, u: np.ndarray, config: ScenesConfig) -> np.ndarray:
    """Synthesize the waveform (N,) float32 of one source.

    Args:
        timbre: Index of the family.
        u: `NUM_SOURCE_UNIFORMS` numbers in [0, 1): everything that varies within the family.
        config: Settings of the scenes.
    """
    r = _RANGES[config.difficulty]
    rate_sr, length = config.sampling_rate, config.num_samples
    points = -(-length // _CONTROL_STEP) + 1
    t = np.arange(points) * (_CONTROL_STEP / rate_sr)

    def between(i: int, name: str) -> float:
        low, high = r[name]
        return low + (high - low) * float(u[i])

    # Position within the family's cycle; the rate drifts once up and down over the clip.
    rate = between(2, "rate") * (0.75 if timbre == 5 else 1.0)
    drift = r["drift"] * (2 * u[3] - 1)
    cycle = u[4] + rate * (t + drift * np.sin(2 * np.pi * (t / config.seconds + u[5])) * config.seconds / (2 * np.pi))
    x = cycle % 1.0
    depth = between(6, "depth")

    # What every source has: vibrato, tremolo, a wandering formant, some noise.
    log_pitch = between(7, "pitch") + between(8, "vibrato") * np.sin(2 * np.pi * ((4 + 4 * u[9]) * t + u[10]))
    loudness = 1 - between(11, "tremolo") * (0.5 + 0.5 * np.sin(2 * np.pi * ((0.5 + 2 * u[12]) * t + u[13])))
    blend = 0.5 + 0.4 * u[14] * np.sin(2 * np.pi * ((0.2 + 0.6 * u[15]) * t + u[16]))
    hiss = np.full(points, between(17, "noise"))

    if timbre == 0:  # rising: pitch climbs through each cycle
        log_pitch += depth * (x - 0.5)
    elif timbre == 1:  # falling
        log_pitch -= depth * (x - 0.5)
    elif timbre == 2:  # trill: two pitches in turn
        log_pitch += 0.5 * depth * np.where(x < 0.5, 1.0, -1.0)
    elif timbre == 3:  # vibrato: pitch swings to and fro
        log_pitch += 0.5 * depth * np.sin(2 * np.pi * x)
    elif timbre == 4:  # pulses: even beats
        loudness *= 0.004 + _smooth_gate(x, 0.0, 0.4 + 0.2 * u[18], 0.06)
    elif timbre == 5:  # gallop: a pair of beats, then a rest
        width = 0.18 + 0.06 * u[18]
        gap = width + 0.1 + 0.04 * u[19]
        loudness *= 0.004 + np.maximum(_smooth_gate(x, 0.0, width, 0.05), _smooth_gate(x, gap, gap + width, 0.05))
    elif timbre == 6:  # wah: the formant opens and closes
        blend = 0.5 - 0.5 * np.cos(2 * np.pi * x)
    else:  # hiss: tone and noise in turn
        voiced = np.clip((np.abs(2 * x - 1) - 0.5) * 8 + 0.5, 0.0, 1.0)
        loudness *= 0.03 + voiced
        hiss = hiss + (0.25 + 0.3 * u[18]) * (1 - voiced)

    onset, end = gate(u, config.seconds)
    hiss *= np.clip(np.minimum((t - onset) / _FADE_IN, (end - t) / _FADE_OUT), 0.0, 1.0)
    loudness *= np.clip(np.minimum((t - onset) / _FADE_IN, (end - t) / _FADE_OUT), 0.0, 1.0)

    # Tone: two tables whose formants lie apart, read at the phase of the pitch.
    pitch = np.exp2(log_pitch)
    harmonics = int(np.clip(0.47 * rate_sr / pitch.max(), 1, r["harmonics"]))
    center = 2.0 ** (9.3 + 1.2 * u[20]) / pitch.mean()
    apart = 2.0 ** (0.5 + 0.5 * u[21]) if timbre == 6 else 2.0 ** (0.5 * u[21])
    tilt, odd, width = 0.2 + 1.0 * u[22], 0.15 + 0.85 * u[23], 0.5 + 0.7 * u[24]
    phases = _phases()[int(u[25] * 64)]
    low = _wave_table(harmonics, tilt, odd, max(center / apart, 1.0), width, phases)
    high = _wave_table(harmonics, tilt, odd, max(center * apart, 1.0), width, phases)
    phase = np.zeros(points)
    np.cumsum(pitch[:-1] * (_CONTROL_STEP / rate_sr), out=phase[1:])
    whole = np.floor(phase[:-1])
    start, step = (phase[:-1] - whole).astype(np.float32), (phase[1:] - phase[:-1]).astype(np.float32)
    position = ((start[:, None] + step[:, None] * _RAMP) * _TABLE_SIZE).astype(np.int32).reshape(-1)[:length]
    position &= _TABLE_SIZE - 1
    wave = low.take(position)
    wave *= _upsample(loudness * (1 - blend), length)
    tone = high.take(position)
    tone *= _upsample(loudness * blend, length)
    wave += tone
    wave += _noise(u[26], u[27], length) * _upsample(hiss, length)
    wave *= _FULL_LEVEL * 10 ** (between(28, "level") / 20)
    return wave


def play(recording: Recording, u: np.ndarray, config: ScenesConfig) -> np.ndarray:
    """Play a random window of the sound of a thing: the waveform (N,) float32 of one source.

    The sound is a loop; a window starts anywhere where it is not much less loud (by 10 dB) than the loudest one.

    Args:
        recording: The sound.
        u: `NUM_SOURCE_UNIFORMS` numbers in [0, 1), of which onset, end, start of the window and level are drawn.
        config: Settings of the scenes.
    """
    first, last = (round(seconds * config.sampling_rate) for seconds in gate(u, config.seconds))
    t = np.arange(last - first) / config.sampling_rate
    fade = np.clip(np.minimum(t / _FADE_IN, t[::-1] / _FADE_OUT), 0.0, 1.0)
    # What counts is heard between the fades: so no window is silent.
    whole = np.flatnonzero(fade == 1)
    begin, end = -(-int(whole[0]) // STEP), int(whole[-1]) // STEP
    starts = np.arange(len(recording.waveform) // STEP)
    heard = recording.energy_before(starts + end) - recording.energy_before(starts + begin)
    loud = np.flatnonzero(heard >= 0.1 * heard.max())
    start = int(loud[int(u[2] * len(loud))]) * STEP
    window = recording.waveform.take(np.arange(start, start + len(t)), mode="wrap") * fade
    low, high = _RANGES[config.difficulty]["level"]
    window *= _FULL_LEVEL * 10 ** ((low + (high - low) * float(u[28])) / 20) / np.sqrt(np.mean(window**2))
    wave = np.zeros(config.num_samples, np.float32)
    wave[first:last] = window
    return wave


def background_noise(u: np.ndarray, config: ScenesConfig) -> np.ndarray:
    """The clip's background noise (N,) float32, of a random color. `u`: 3 numbers in [0, 1)."""
    low, high = _RANGES[config.difficulty]["background"]
    level = low * (high / low) ** float(u[0]) if config.noise is None else config.noise
    return np.float32(_FULL_LEVEL * level) * _noise(u[1], u[2], config.num_samples)
