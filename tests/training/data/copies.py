"""Small copies of the public data sets in their layouts, made of built-in scenes: what recipes are run on in tests.

Names of files are as odd as real ones, annotation files have the line ends and the quotes that copies of them have, and
some annotated clips are missing.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from deepavfusion.training.data.scenes import CLASS_NAMES, ScenesConfig, generate_scene, write_video, write_wav
from deepavfusion.training.data.sets.vggsound import class_folder
from tests.media_factory import write_media

from .disk import put, write

SECONDS = 6.0  # boxes are drawn at 5 s
_FPS = 2
_SCENES = ScenesConfig(
    image_size=(48, 64), seconds=SECONDS, difficulty="easy", min_objects=2, max_objects=2, max_sounding=1
)
LABELS = ("cat, meowing", "people running (outside)")
INSTRUMENTS = ("acoustic guitar", "flute")


class Copy(NamedTuple):
    """A copy of a data set on disk."""

    path: Path
    options: dict[str, str] = {}
    """Options of section `data` that it needs, besides its path."""
    missing: int = 0
    """Number of annotated clips that are not on disk."""


@functools.cache
def scene(index: int):
    """A scene of two objects, one of which sounds; there are four of them."""
    return generate_scene(_SCENES, index % 4)


class Clips:
    """Video files of scenes, each encoded once.

    Args:
        folder: Folder of the originals.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def original(self, index: int, suffix: str) -> Path:
        """A video of a scene in the container of a suffix."""
        shown, path = scene(index), self.folder / f"{index}{suffix}"
        if path.exists():
            return path
        if suffix == ".mp4":
            frames = shown.frames.repeat(round(SECONDS * _FPS), 0)
            write_video(path, frames, shown.waveform, shown.sampling_rate, rate=_FPS)
        else:
            codecs = {"codec": "libvpx", "audio_codec": "libopus", "rate": 48000} if suffix == ".webm" else {}
            audio = shown.waveform[None].repeat(codecs.get("rate", 16000) // shown.sampling_rate, 1)
            write_media(path, seconds=SECONDS, fps=_FPS, audio=audio, paint=lambda _: shown.frames[0], **codecs)
        return path

    def put(self, index: int, *paths: Path) -> None:
        """Copy a scene's video to paths, in the containers of their suffixes."""
        for path in paths:
            put(self.original(index % 4, path.suffix), path)


def youtube_id(number: int) -> str:
    """An id of eleven characters; some start with a dash, some look like options or times."""
    return f"{'-_aZ'[number % 4]}-{number:02d}_000Y0"[:10] + "3"


def _write_frame(index: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene(index).frames[0]).save(path)


def _write_audio(index: int, path: Path, seconds: float = SECONDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = scene(index)
    write_wav(path, shown.waveform[: round(seconds * shown.sampling_rate)], shown.sampling_rate)


def _sounding(index: int) -> tuple[np.ndarray, int]:
    """Mask (H, W) of the object that sounds, and its class."""
    shown = scene(index)
    return shown.masks[shown.sounding][0, 0], shown.label


def _fractions(index: int) -> list[float]:
    """The box of the object that sounds, as fractions of the frame."""
    shown = scene(index)
    height, width = shown.frames.shape[1:3]
    box = shown.boxes[shown.sounding][0, 0]
    return [float(value) / side for value, side in zip(box, (width, height) * 2, strict=True)]


def _vggsound_clips(clips: Clips, root: Path, labels: tuple[str, ...]) -> list[str]:
    """Six training and four test clips, one of each missing; keys of those that are there, tests last."""
    lines, keys = [], []
    for k in range(10):
        video, start, label, split = youtube_id(k), 10 * k, labels[k % 2], "train" if k < 6 else "test"
        quoted = f'"{video}","{start}","{label}","{split}"' if k % 2 else f'{video},{start},"{label}",{split}'
        lines.append(quoted)
        if k in (5, 9):
            continue
        suffix = {1: ".mkv", 3: ".webm"}.get(k, ".mp4")
        clips.put(k, root / "clips" / class_folder(label) / f"{video}_{start:06d}_{start + 10:06d}{suffix}")
        keys.append(f"{video}_{start:06d}")
    write(root / "annotations" / "vggsound.csv", "\r\n".join(lines) + "\r\n")
    return keys


def vggsound(clips: Clips, root: Path) -> Copy:
    """VGGSound: labels with commas and brackets, CRLF, every second line quoted throughout."""
    _vggsound_clips(clips, root, LABELS)
    return Copy(root, missing=2)


def vggsound_music(clips: Clips, root: Path) -> Copy:
    """VGGSound's clips of instruments with the lists for separation; a training clip is a test clip."""
    labels = ("playing violin, fiddle", "playing harp")
    keys = _vggsound_clips(clips, root, labels)
    names = [("violin", "harp")[k % 2] for k in range(len(keys))]
    listed = [f"{key},{name}" for key, name in zip(keys[:6], names, strict=False)]
    write(root / "annotations" / "vggmusic_train.txt", "\n".join([*listed, f"{youtube_id(50)}_000030,harp"]) + "\n")
    rows = ["source_1,source_2,class_1,class_2,sep_type"]
    rows += [f"{keys[a]},{keys[b]},{names[a]},{names[b]},Easy" for a, b in ((5, 6), (6, 7))]
    rows.append(f"{keys[5]},{youtube_id(51)}_000000,harp,violin,Hard")
    write(root / "annotations" / "vggmusic_eval_ss.csv", "\r\n".join(rows) + "\r\n")
    return Copy(root, missing=2)


def audioset(clips: Clips, root: Path) -> Copy:
    """AudioSet: comments, a header, labels in quotes or not, blanks after commas, several labels per clip."""
    names = ("Speech", "Male speech, man speaking", "Dog")
    rows = ["index,mid,display_name", *(f'{i},/m/0{i},"{name}"' for i, name in enumerate(names))]
    write(root / "class_labels_indices.csv", "\n".join(rows) + "\n")
    comment = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=3\n"
    head = {
        "balanced_train": f"{comment}# YTID, start_seconds, end_seconds, positive_labels\n",
        "unbalanced_train": "YTID,start_seconds,end_seconds,positive_labels\r\n",
        "eval": "",
    }
    for part, (name, text) in enumerate(head.items()):
        lines = []
        for k in range(10 * part, 10 * part + 4):
            video, blank = youtube_id(k), "" if part == 1 else " "
            mids = ",".join(sorted({f"/m/0{k % 3}", f"/m/0{k % 2}"}))
            lines.append(f'{video},{blank}{k:.3f},{blank}{k + 10:.3f},{blank}"{mids}"')
            if k % 10 != 3:
                clips.put(k, root / "clips" / video[:2] / f"{video}_{k:06d}_{k + 10:06d}.mp4")
        write(root / f"{name}_segments.csv", text + "\r\n".join(lines) + "\r\n")
    return Copy(root, missing=3)


def _music(clips: Clips, root: Path, folder: str) -> list[tuple[str, str]]:
    """Eight solos, the last one missing, one of them in two parts; (id, instrument) of all."""
    solos = [(youtube_id(k), INSTRUMENTS[k // 2 % 2]) for k in range(8)]
    for k, (video, instrument) in enumerate(solos[:-1]):
        for part in range(1 + (k == 1)):
            clips.put(k + part, root / folder / instrument.replace(" ", "_") / f"{video}.{part:04d}.mp4")
    return solos


def music(clips: Clips, root: Path) -> Copy:
    """MUSIC as published code has it: `clips_360p_segm`, csv lists with a header, CRLF."""
    solos = _music(clips, root, "clips_360p_segm")
    lines = ["youtube,instrument,split", *(f'{video},"{name}",train' for video, name in solos)]
    write(root / "anno" / "music_solo.csv", "\r\n".join(lines) + "\r\n")
    return Copy(root, missing=1)


def music_json(clips: Clips, root: Path) -> Copy:
    """MUSIC by its own lists: `clips`, json."""
    solos = _music(clips, root, "clips")
    listed = {name: [video for video, own in solos if own == name] for name in INSTRUMENTS}
    write(root / "MUSIC_solo_videos.json", json.dumps({"videos": listed}))
    return Copy(root, missing=1)


_SPLITS = (("train", 2), ("val", 1), ("test", 1))


def avsbench(clips: Clips, root: Path) -> Copy:
    """AVSBench, the release with classes: a frame per second, masks of palette and gray images, a video missing."""
    names = ["background", *CLASS_NAMES]
    write(root / "label2idx.json", json.dumps({name: i for i, name in enumerate(names, start=1)}))
    lines, number = ["vid,uid,s_min,s_sec,a_obj,split,label"], 0
    for label in ("v1s", "v1m", "v2"):
        for split, videos in _SPLITS:
            for _ in range(videos):
                uid = f"{youtube_id(number)}_{number}_{number + 5}"
                mask, index = _sounding(number)
                name = CLASS_NAMES[index].replace(" ", "-")
                lines.append(f'{youtube_id(number)},{uid},{number},{number + 5},"{name}",{split},{label}')
                folder = root / label / uid
                for second in range(2):
                    _write_frame(number, folder / "frames" / f"{second}.jpg")
                for second in range(1 if (label, split) == ("v1s", "train") else 2):
                    image = Image.fromarray(np.where(mask, index + 1, 0).astype(np.uint8))
                    if number % 2:
                        image = image.convert("P")
                    path = folder / "labels_semantic" / f"{second}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    image.save(path)
                _write_audio(number, folder / "audio.wav", 5.0)
                number += 1
    lines.append(f"{youtube_id(60)},{youtube_id(60)}_0_5,0,5,gone,test,v1s")
    write(root / "metadata.csv", "\r\n".join(lines) + "\r\n")
    return Copy(root, missing=1)


def avsbench_objects(clips: Clips, root: Path) -> Copy:
    """AVSBench, the release of objects: S4 by class, MS3 without classes, masks in color."""
    number = 0
    for top, inner in (("Single-source/s4_data", "flute"), ("Multi-sources/ms3_data", "")):
        for split, videos in _SPLITS:
            for _ in range(videos):
                video, base = f"{youtube_id(number)}_{number}", root / top
                mask = _sounding(number)[0]
                shown = base / "visual_frames" / (Path(split, inner, video) if inner else video)
                for k in range(1, 2 if inner and split == "train" else 3):
                    path = base / "gt_masks" / split / inner / video / f"{video}_{k}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(np.where(mask[..., None], (255, 128, 0), 0).astype(np.uint8)).save(path)
                    _write_frame(number, shown / (f"{video}_{k}.png" if inner else f"{video}.mp4_{k}.png"))
                _write_audio(number, base / "audio_wav" / split / inner / f"{video}.wav", 5.0)
                number += 1
    return Copy(root)


# Boxes as some of VGG-SS are: without area, one of them far outside of the frame.
_DEGENERATE = ([0.26875, 1.0, 0.753125, 1.0], [0.384375, 0.859375, 0.696875, -2.8823037615171176e16])


def _vggss_annotations(root: Path, keys: list[str]) -> None:
    rows = [{"file": key, "class": "xy"[k % 2], "bbox": [_fractions(k)]} for k, key in enumerate(keys)]
    rows[0]["bbox"].append(_DEGENERATE[0])
    rows.append({"file": f"{youtube_id(70)}_000000", "class": "x", "bbox": [_DEGENERATE[1]]})
    write(root / "vggss.json", json.dumps(rows))


def vggss(clips: Clips, root: Path) -> Copy:
    """VGG-SS as frames and audio, with a list of training clips."""
    keys = [f"{youtube_id(k)}_{10 * k:06d}" for k in range(8)]
    for k, key in enumerate(keys):
        _write_frame(k, root / "frames" / f"{key}.jpg")
        _write_audio(k, root / "audio" / f"{key}.wav")
    _vggss_annotations(root, [*keys[4:], f"{youtube_id(71)}_000012"])
    listed = write(root / "vggss_10k.txt", "\n".join(keys[:5]) + "\n")  # one of them is a test clip
    return Copy(root, {"train_list": str(listed), "validation_fraction": "0.5"}, missing=1)


def vggss_clips(clips: Clips, root: Path) -> Copy:
    """VGG-SS as clips of VGGSound, whose csv tells that one of the listed training clips is a test clip."""
    keys = _vggsound_clips(clips, root, LABELS)
    _vggss_annotations(root, keys[5:])
    listed = write(root / "vggss_10k.txt", "\r\n".join(keys[:6]) + "\r\n")
    return Copy(root, {"train_list": str(listed), "validation_fraction": "0.5"})


def flickr_soundnet(clips: Clips, root: Path) -> Copy:
    """Flickr-SoundNet: two annotators' boxes, one without area, a frame whose source is not visible."""
    for k in range(8):
        name = str(10_000_130_166 + k)
        _write_frame(k, root / "frames" / f"{name}.jpg")
        if k < 7:
            _write_audio(k, root / "audio" / f"{name}.wav")
        corners = [round(256 * value) for value in _fractions(k)]
        boxes = [] if k == 6 else [corners, corners, [10, 10, 10, 20]]
        fields = "".join(
            "<annotator><bbox><label>1</label>"
            + "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("x1", "y1", "x2", "y2"), box, strict=True))
            + "</bbox></annotator>"
            for box in boxes
        )
        write(root / "Annotations" / f"{name}.xml", f"<annotation><name>{name}</name>{fields}</annotation>\r\n")
    names = [str(10_000_130_166 + k) for k in range(8)]
    train = write(root / "flickr_sup_train.txt", "\n".join(names[:4]) + "\n")
    test = write(root / "flickr_test.csv", "".join(f"{name},202\r\n" for name in names[4:]))
    return Copy(root, {"train_list": str(train), "test_list": str(test)}, missing=1)


def is3(clips: Clips, root: Path) -> Copy:
    """IS3: an image file for each object that sounds, boxes in pixels of 224, one without area, folders of others."""
    entries = []
    for k, pair in enumerate((("cat", "banjo"), ("fox", "train"), ("bus", "owl"))):
        for part, sounding in enumerate(pair):
            name = f"{pair[0]}_{pair[1]}_{10438 + k}_{sounding}"
            _write_frame(k, root / "images" / f"{name}.jpg")
            if k < 2 or part == 0:
                _write_audio(2 * k + part, root / "audio_wav" / f"{name}.wav")
            box = [round(224 * value, 1) for value in _fractions(k)] if k < 2 or part == 1 else [10, 10, 10, 20]
            elsewhere = "/data/is3"
            files = {"image": f"{elsewhere}/visual_frames/{name}.jpg", "audio": f"{elsewhere}/audio_wav/{name}.wav"}
            entries.append({**files, "gt_box": box})
    write(root / "IS3_annotation.json", json.dumps(entries))
    return Copy(root, missing=1)


def folder(clips: Clips, root: Path) -> Copy:
    """A folder per class, with names of all kinds and files that are no clips."""
    names = {"Löwe & Bär": ("-clip 1.mp4", "20%.mkv", "日本.mp4"), "b": ("A.MP4", "x.webm", "y.mp4")}
    for label, files in names.items():
        for k, name in enumerate(files):
            put(clips.original(k, Path(name).suffix.lower()), root / label / name)
        write(root / label / "notes.txt", "no clip")
        write(root / label / f"._{files[0]}", "no clip")
    return Copy(root)


# Data set -> its layouts; recipes are run on the first one.
COPIES: dict[str, tuple[Callable[[Clips, Path], Copy], ...]] = {
    "vggsound": (vggsound,),
    "vggsound_music": (vggsound_music,),
    "audioset": (audioset,),
    "music": (music, music_json),
    "avsbench": (avsbench, avsbench_objects),
    "vggss": (vggss, vggss_clips),
    "flickr_soundnet": (flickr_soundnet,),
    "is3": (is3,),
    "folder": (folder,),
}
