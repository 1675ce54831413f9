"""Generation of scenes, and their design."""

import subprocess
from collections import defaultdict

import numpy as np
import pytest

from deepavfusion.training.data.scenes import (
    CLASS_SHAPE,
    CLASS_TIMBRE,
    COMPATIBLE_SHAPES,
    SPLIT_OFFSETS,
    ScenesConfig,
    generate_classes,
    generate_clip,
    generate_scene,
    modality_ceilings,
)
from deepavfusion.training.data.scenes.audio import NUM_SOURCE_UNIFORMS, synthesize
from deepavfusion.training.data.scenes.config import enumerate_structures
from deepavfusion.training.data.scenes.generation import _Plan, generate_frames, generate_waveform
from deepavfusion.training.data.scenes.image import shape_tables
from tests.warm import warm_python

SHORT = ScenesConfig(seconds=1.5)
DIGEST = """
import hashlib
from deepavfusion.training.data.scenes import ScenesConfig, generate_scene
digest = hashlib.sha256()
for index in (5, 0, 3 << 40):
    scene = generate_scene(ScenesConfig(seconds=1.5, seed=7), index)
    for name in ("frames", "waveform", "stems", "masks", "boxes", "class_ids"):
        digest.update(getattr(scene, name).tobytes())
print(digest.hexdigest())
"""


def test_every_shape_has_two_timbres_and_every_timbre_two_shapes():
    timbres, shapes = defaultdict(set), defaultdict(set)
    for shape, timbre in zip(CLASS_SHAPE, CLASS_TIMBRE):
        timbres[shape].add(timbre)
        shapes[timbre].add(shape)
    assert len(set(zip(CLASS_SHAPE, CLASS_TIMBRE))) == 16
    assert {len(t) for t in timbres.values()} == {len(s) for s in shapes.values()} == {2}
    assert sorted(timbres) == sorted(shapes) == list(range(8))
    reached = {0}
    for _ in range(8):  # from shape to timbre to shape: the design is connected
        reached |= {s for shape in reached for t in timbres[shape] for s in shapes[t]}
    assert reached == set(range(8))


def test_scenes_are_deterministic_across_processes():
    run = subprocess.run([warm_python(), "-c", DIGEST], capture_output=True, text=True, check=True)
    namespace = {}
    exec(DIGEST.replace("print(digest.hexdigest())", "value = digest.hexdigest()"), namespace)
    assert run.stdout.strip() == namespace["value"]


def test_scenes_differ_by_index_and_by_seed():
    scene = generate_scene(SHORT, 1)
    for other in (generate_scene(SHORT, 2), generate_scene(ScenesConfig(seconds=1.5, seed=1), 1)):
        assert not np.array_equal(scene.frames, other.frames)
        assert not np.array_equal(scene.waveform, other.waveform)


def test_audio_and_image_settings_are_independent():
    assert np.array_equal(generate_waveform(SHORT, 9), generate_waveform(ScenesConfig(seconds=1.5, image_size=128), 9))
    assert np.array_equal(generate_frames(SHORT, 9), generate_frames(ScenesConfig(seconds=3.0), 9))
    moving = ScenesConfig(seconds=1.5, num_frames=4, motion=True)
    assert np.array_equal(generate_waveform(SHORT, 9), generate_waveform(moving, 9))


def test_partial_generation_matches_whole_scenes():
    scene = generate_scene(SHORT, 11)
    frames, waveform, classes = generate_clip(SHORT, 11)
    assert np.array_equal(frames, scene.frames)
    assert np.array_equal(waveform, scene.waveform)
    assert np.array_equal(classes, scene.class_ids[scene.sounding])
    assert np.array_equal(generate_classes(SHORT, 11), classes)


@pytest.mark.parametrize("difficulty", ["easy", "standard", "hard"])
def test_ground_truth(difficulty):
    config = ScenesConfig(seconds=1.0, difficulty=difficulty, max_sounding=3, image_size=(64, 80))
    for index in range(60):
        scene = generate_scene(config, index)
        objects, sources = len(scene.shape_ids), int(scene.sounding.sum())
        assert scene.frames.shape == (1, 64, 80, 3)
        assert scene.frames.dtype == np.uint8
        assert scene.frames.std() > 3
        assert 1 <= objects <= 4
        assert 1 <= sources <= 3
        # Audio: the stems and the background add up exactly; no source is silent, nothing is clipped.
        assert scene.waveform.dtype == scene.stems.dtype == np.float32
        assert scene.stems.shape == (sources, 16000)
        assert np.array_equal(scene.stems.sum(0) + scene.background, scene.waveform)
        assert np.abs(scene.waveform).max() < 1
        assert (scene.stems.std(axis=1) > 1e-3).all()
        # Image: every object is visible, and masks are disjoint.
        assert scene.masks.shape == (objects, 1, 64, 80)
        assert scene.masks.sum(0).max() == 1
        assert (scene.masks.sum((1, 2, 3)) >= 25).all()
        for mask, (x1, y1, x2, y2) in zip(scene.masks[:, 0], scene.boxes[:, 0]):
            rows, columns = np.nonzero(mask)
            assert (x1, y1, x2, y2) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        # Labels.
        assert np.array_equal(scene.sounding, scene.class_ids >= 0)
        assert np.array_equal(scene.sounding, scene.timbre_ids >= 0)
        classes = scene.class_ids[scene.sounding]
        assert np.array_equal(scene.shape_ids[scene.sounding], np.array(CLASS_SHAPE)[classes])
        assert np.array_equal(scene.timbre_ids[scene.sounding], np.array(CLASS_TIMBRE)[classes])
        assert scene.labels.sum() == sources
        assert (scene.labels[classes] == 1).all()


def test_exactly_one_visible_object_fits_each_timbre():
    config = ScenesConfig(max_sounding=3, seconds=0.75, image_size=32)
    counts = set()
    for index in range(400):
        scene = generate_scene(config, index)
        counts.add((len(scene.shape_ids), int(scene.sounding.sum())))
        for k in np.nonzero(scene.sounding)[0]:
            fitting = [s for s in scene.shape_ids if s in COMPATIBLE_SHAPES[scene.timbre_ids[k]]]
            assert fitting == [scene.shape_ids[k]]
    assert counts == {(n, m) for n in range(1, 5) for m in range(1, min(n, 3) + 1)}


def test_depth_order_is_independent_of_sounding():
    config = ScenesConfig(max_sounding=1, min_objects=4)
    front = [generate_scene(config, i).sounding[-1] for i in range(400)]
    assert 0.17 < np.mean(front) < 0.33


@pytest.mark.parametrize("max_sounding", [1, 2, 3])
def test_structure_probabilities_sum_to_one_and_classes_are_balanced(max_sounding):
    frequencies, total = np.zeros(16), 0.0
    for p, classes, _ in enumerate_structures(ScenesConfig(max_sounding=max_sounding)):
        total += p
        frequencies[list(classes)] += p
    assert total == pytest.approx(1)
    assert frequencies == pytest.approx(frequencies.mean())


def test_single_modality_ceilings_are_one_half():
    for config in (ScenesConfig(), ScenesConfig(max_sounding=1), ScenesConfig(max_sounding=3)):
        ceilings = modality_ceilings(config)
        assert ceilings["audio"] == pytest.approx({"single_object_accuracy": 0.5, "accuracy": 0.5, "mAP": 0.5})
        assert ceilings["image"]["single_object_accuracy"] == pytest.approx(0.5)
        assert ceilings["both"] == pytest.approx({"single_object_accuracy": 1, "accuracy": 1, "mAP": 1})
        assert ceilings["chance"]["single_object_accuracy"] == pytest.approx(1 / 16)
    assert modality_ceilings(ScenesConfig(max_sounding=1))["image"]["accuracy"] < 0.4  # silent objects distract


@pytest.mark.parametrize("max_sounding", [1, 2])
def test_ceilings_match_ideal_observers_on_scenes(max_sounding):
    """Observers that learn each evidence's class frequencies from scenes, scored on the same many scenes."""
    config = ScenesConfig(max_sounding=max_sounding, max_objects=2)
    plans = [_Plan(config, i) for i in range(12000)]
    truth = np.zeros((len(plans), 16))
    for row, plan in zip(truth, plans):
        row[plan.class_ids[plan.sounding]] = 1
    ceilings = modality_ceilings(config)
    modalities = {
        "image": [tuple(sorted(plan.shape_ids)) for plan in plans],
        "audio": [tuple(sorted(plan.timbre_ids[plan.sounding])) for plan in plans],
    }
    for modality, evidence in modalities.items():
        numbers = np.unique(evidence_ids(evidence), return_inverse=True)[1]
        posterior = np.stack([np.bincount(numbers, weights=column) for column in truth.T], axis=1)
        posterior /= np.bincount(numbers)[:, None]
        scores = posterior[numbers]
        accuracy = truth[np.arange(len(plans)), scores.argmax(1)].mean()
        assert accuracy == pytest.approx(ceilings[modality]["accuracy"], abs=0.03)
        noise = np.random.default_rng(0).random(scores.shape) * 1e-9  # ties in random order
        assert average_precision(truth, scores + noise) == pytest.approx(ceilings[modality]["mAP"], abs=0.04)


def evidence_ids(evidence: list[tuple]) -> np.ndarray:
    known = {e: k for k, e in enumerate(sorted(set(evidence)))}
    return np.array([known[e] for e in evidence])


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    values = []
    for t, s in zip(truth.T, scores.T):
        hits = t[np.argsort(-s)]
        values.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits == 1].mean())
    return float(np.mean(values))


def test_shapes_are_closed_and_distinct():
    tables = shape_tables()
    edge = np.concatenate([tables[:, 0], tables[:, -1], tables[:, :, 0], tables[:, :, -1]], axis=1)
    assert (edge > 0.2).all()  # nothing reaches the border
    inside = tables < 0
    assert (inside.sum((1, 2)) > 0.1 * inside[0].size * np.pi / 4 / 1.4**2).all()
    for a in range(8):
        for b in range(a):
            overlap = (inside[a] & inside[b]).sum() / (inside[a] | inside[b]).sum()
            assert overlap < 0.8


def test_rising_and_falling_differ_in_temporal_order():
    """A rising tone's pitch climbs most of the time, a falling one's sinks: followed by the autocorrelation's peak."""
    config = ScenesConfig(seconds=1.5, difficulty="easy")
    for timbre, sign in ((0, 1), (1, -1)):
        moves = []
        for u in np.random.default_rng(timbre).random((20, NUM_SOURCE_UNIFORMS)):
            wave = synthesize(timbre, u, config)[4000:20000]
            frames = np.lib.stride_tricks.sliding_window_view(wave, 800)[::160] * np.hanning(800)
            autocorrelation = np.fft.irfft(np.abs(np.fft.rfft(frames, 4096)) ** 2)[:, 20:60]
            moves.append(np.sign(-np.diff(autocorrelation.argmax(1))).mean())
        assert np.mean(moves) * sign > 0.2


def test_motion_is_independent_of_sounding():
    config = ScenesConfig(num_frames=8, motion=True, max_sounding=1, min_objects=2, max_objects=2)
    reach = {True: [], False: []}
    for index in range(300):
        plan = _Plan(config, index)
        for sounds, swing in zip(plan.sounding, plan.swings(config)):
            reach[bool(sounds)].append([np.abs(swing).max(), np.abs(swing[0]).max(), np.abs(swing[-1]).max()])
    silent, sounding = (np.mean(reach[sounds], axis=0) for sounds in (False, True))
    assert silent == pytest.approx(sounding, abs=0.04)


def test_motion_moves_objects():
    still = generate_scene(ScenesConfig(seconds=1.5, num_frames=4), 5)
    moving = generate_scene(ScenesConfig(seconds=1.5, num_frames=4, motion=True), 5)
    assert (still.masks == still.masks[:, :1]).all()
    assert np.array_equal(moving.class_ids, still.class_ids)
    assert not (moving.masks == moving.masks[:, :1]).all()
    assert moving.frames.shape == (4, 64, 64, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"difficulty": "brutal"}, "easy, standard, hard"),
        ({"min_objects": 3, "max_objects": 2}, "min_objects"),
        ({"max_objects": 5}, "max_objects"),
        ({"max_sounding": 4}, "max_sounding"),
        ({"motion": True}, "num_frames"),
        ({"image_size": 16}, "32"),
        ({"seconds": 0.1}, "0.75"),
        ({"noise": -1.0}, "noise"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        ScenesConfig(**settings)


def test_noise_setting():
    silent = generate_scene(ScenesConfig(seconds=1.5, noise=0.0), 3)
    assert not silent.background.any()
    assert generate_scene(ScenesConfig(seconds=1.5, noise=0.5), 3).background.std() == pytest.approx(0.07, rel=0.3)


def test_label_requires_one_sounding_object():
    single = generate_scene(ScenesConfig(seconds=1.0, max_sounding=1), 0)
    assert single.label == int(single.labels.argmax())
    config = ScenesConfig(seconds=1.0, min_objects=4)
    several = next(s for s in (generate_scene(config, i) for i in range(50)) if s.sounding.sum() == 2)
    with pytest.raises(ValueError, match="got 2 in scene"):
        _ = several.label


def test_splits_do_not_overlap():
    starts = sorted(SPLIT_OFFSETS.values())
    assert len(set(starts)) == 3
    assert min(np.diff(starts)) >= 1 << 40
