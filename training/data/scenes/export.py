"""Export of scenes to mp4, wav and png files, and a figure of several scenes with their ground truth."""

import json
import wave
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from .config import ScenesConfig
from .generation import Scene, generate_scene

FRAME_RATE = 25


def write_video(path: str | Path, frames: np.ndarray, waveform: np.ndarray, sampling_rate: int, rate: int = FRAME_RATE):
    """Write an mp4 with H.264 and AAC.

    Args:
        path: File to write.
        frames: (T, H, W, 3) uint8; the last row or column of odd sizes is doubled.
        waveform: (N,) float32.
        sampling_rate: Sampling rate in Hz.
        rate: Frames per second.

    Raises:
        EncoderError: If PyAV has no encoder for H.264.
    """
    from deepavfusion.inference.films.encoding import FilmWriter

    with FilmWriter(path, Fraction(rate), sampling_rate, quality=18) as film:
        for frame in frames:
            film.add(frame)
        film.add_audio(waveform[None])


def write_wav(path: str | Path, waveform: np.ndarray, sampling_rate: int) -> None:
    """Write (N,) float32 in [-1, 1] as 16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).round().astype("<i2").tobytes())


def write_scene(config: ScenesConfig, index: int, folder: str | Path, motion: bool = True) -> list[Path]:
    """Write a scene and its ground truth.

    The files are `clip.mp4`, `mixture.wav`, `stem_<k>_<class>.wav`, `background.wav`, `frame.png`,
    `mask_<k>_<shape>_<sounding or silent>.png` and `scene.json`; of things, class and shape are their names.

    Args:
        config: Settings of the image and of the audio.
        index: Index of the scene.
        folder: Folder to write; created if missing.
        motion: Whether the objects of the mp4 move.

    Returns:
        The files written.
    """
    from PIL import Image

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    design, kind = config.design, "shape" if config.things is None else "thing"
    scene = generate_scene(replace(config, num_frames=1, motion=False), index)
    frames = max(2, round(config.seconds * FRAME_RATE))
    video = generate_scene(replace(config, num_frames=frames, motion=motion), index)
    written = [folder / "clip.mp4", folder / "mixture.wav", folder / "background.wav", folder / "frame.png"]
    write_video(written[0], video.frames, video.waveform, video.sampling_rate)
    write_wav(written[1], scene.waveform, scene.sampling_rate)
    write_wav(written[2], scene.background, scene.sampling_rate)
    Image.fromarray(scene.frames[0]).save(written[3])
    for k, (stem, c) in enumerate(zip(scene.stems, scene.class_ids[scene.sounding])):
        written.append(folder / f"stem_{k}_{design.class_names[c].replace(' ', '_')}.wav")
        write_wav(written[-1], stem, scene.sampling_rate)
    objects = []
    for k, (mask, shape, sounding) in enumerate(zip(scene.masks[:, 0], scene.shape_ids, scene.sounding)):
        written.append(folder / f"mask_{k}_{design.shapes[shape]}_{'sounding' if sounding else 'silent'}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(written[-1])
        name = design.class_names[scene.class_ids[k]] if sounding else None
        box = scene.boxes[k, 0].tolist()
        objects.append({kind: design.shapes[shape], "sounding": bool(sounding), "class": name, "box": box})
    written.append(folder / "scene.json")
    about = {"index": index, "config": config.to_dict(), "sampling_rate": scene.sampling_rate, "objects": objects}
    written[-1].write_text(json.dumps(about, indent=1) + "\n")
    return written


def _spectrogram(waveform: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, float]:
    """Power in dB (bins, frames) up to 6 kHz, windows of 50 ms, for display only."""
    size, hop = round(0.05 * sampling_rate), round(0.0125 * sampling_rate)
    padded = np.pad(waveform, size // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, n=2 * size)).T ** 2
    top = int(6000 / sampling_rate * 2 * size)
    return 10 * np.log10(power[:top] + 1e-6), top * sampling_rate / (2 * size) / 1000


def _overlay(scene: Scene) -> np.ndarray:
    """The frame, grayed, with sounding objects in orange and silent ones in blue."""
    frame = scene.frames[0].astype(np.float32) / 255
    image = 0.35 + 0.4 * frame.mean(-1, keepdims=True).repeat(3, axis=-1)
    for mask, sounding in zip(scene.masks[:, 0], scene.sounding):
        color = np.array([1.0, 0.55, 0.1] if sounding else [0.25, 0.5, 1.0])
        image[mask] = 0.25 * image[mask] + 0.75 * color
    return image


def write_sheet(config: ScenesConfig, indices: Iterable[int], path: str | Path) -> None:
    """Draw a row per scene: the frame, its sounding objects, and the spectrograms of mixture and stems.

    Args:
        config: Settings of the scenes.
        indices: Indices of the scenes.
        path: Figure to write; its suffix determines the format.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch, Rectangle
    from PIL import Image

    scenes = [generate_scene(config, i) for i in indices]
    stems = max(len(scene.stems) for scene in scenes)
    columns, (shapes, timbres) = 3 + stems, (config.design.shapes, config.design.timbres)
    figure, axes = plt.subplots(
        len(scenes),
        columns,
        figsize=(2.1 * 2 + 2.9 * (columns - 2), 2.15 * len(scenes) + 0.45),
        gridspec_kw={"width_ratios": [1, 1] + [1.35] * (columns - 2)},
        squeeze=False,
        layout="constrained",
    )
    plain = {"fontsize": 9, "pad": 4}
    for row, (scene, cells) in enumerate(zip(scenes, axes)):
        for cell in cells:
            cell.set(xticks=[], yticks=[])
            for side in cell.spines.values():
                side.set_visible(False)
        cells[0].imshow(scene.frames[0])
        cells[1].imshow(_overlay(scene))
        for k, sounding in enumerate(scene.sounding):
            x1, y1, x2, y2 = scene.boxes[k, 0] - 0.5
            edge = "#ff8c1a" if sounding else "#4080ff"
            cells[1].add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=edge, linewidth=1.4))
        names = ", ".join(shapes[s] for s in scene.shape_ids)
        cells[0].set_title(names, **plain)
        cells[1].set_title(", ".join(shapes[s] for s in scene.shape_ids[scene.sounding]) + " sounding", **plain)
        tracks = [("mixture", scene.waveform)]
        tracks += [(f"stem: {timbres[t]}", s) for t, s in zip(scene.timbre_ids[scene.sounding], scene.stems)]
        peak = _spectrogram(scene.waveform, scene.sampling_rate)[0].max()
        for cell, (title, waveform) in zip(cells[2:], tracks):
            image, top = _spectrogram(waveform, scene.sampling_rate)
            cell.imshow(
                image, origin="lower", aspect="auto", cmap="magma", vmin=peak - 65, vmax=peak,
                extent=(0, config.seconds, 0, top),
            )  # fmt: skip
            cell.set_title(title, **plain)
            if row == len(scenes) - 1:
                cell.set_xticks(range(int(config.seconds) + 1))
                cell.tick_params(labelsize=8, length=2)
                cell.set_xlabel("seconds", fontsize=8, labelpad=1)
        cells[2].set_yticks([0, 2, 4, 6])
        cells[2].tick_params(labelsize=8, length=2)
        cells[2].set_ylabel("kHz", fontsize=8, labelpad=1)
        for cell in cells[2 + len(tracks) :]:
            cell.axis("off")
    figure.legend(
        handles=[Patch(color="#ff8c1a", label="sounding"), Patch(color="#4080ff", label="silent")],
        loc="outside lower left", ncols=2, frameon=False, fontsize=9,
    )  # fmt: skip
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    if path.suffix == ".png":
        # Noise does not compress: 256 colors look the same at a third of the file size.
        with Image.open(path) as image:
            small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
    plt.close(figure)
