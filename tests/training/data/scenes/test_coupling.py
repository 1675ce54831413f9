"""Links between image and audio."""

import math

import numpy as np
import pytest

from deepavfusion.training.data.scenes import LINKS, ScenesConfig, generate_clip, generate_scene, link_strengths
from deepavfusion.training.data.scenes import regenerate_clip as regenerate
from deepavfusion.training.data.scenes.coupling import couple, couple_object, couple_source, normal_score
from deepavfusion.training.data.scenes.generation import _Plan

ONE = {"difficulty": "easy", "max_objects": 1, "max_sounding": 1}


def scores(values):
    return np.array([normal_score(value) for value in values])


def test_caches_of_scenes_without_coupling_stay_valid():
    assert "coupling" not in ScenesConfig().to_dict()
    assert ScenesConfig(coupling=0.5).to_dict()["coupling"] == 0.5


@pytest.mark.parametrize("coupling", [-0.1, 1.0, float("nan")])
def test_impossible_couplings_are_refused(coupling):
    with pytest.raises(ValueError, match="coupling"):
        ScenesConfig(coupling=coupling)


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.9])
def test_a_link_keeps_both_uniform_and_has_its_correlation(correlation):
    rng = np.random.default_rng(0)
    given, noise = rng.random((2, 20_000))
    linked = np.array([couple(u, e, correlation) for u, e in zip(given, noise, strict=True)])
    assert np.histogram(linked, bins=10, range=(0, 1))[0] == pytest.approx(np.full(10, 2000), abs=200)
    assert np.corrcoef(scores(given), scores(linked))[0, 1] == pytest.approx(correlation, abs=0.02)


@pytest.mark.parametrize("coupling", [0.0, 0.5, 0.97])
def test_strengths_are_what_a_simulation_finds(coupling):
    """The best loss is that of the conditional mean, here by sorting into bins; bits are those of normal variables."""
    rng = np.random.default_rng(1)
    given, noise = rng.random((2, 200_000))
    free = math.sqrt(1 - coupling**2) * scores(noise)
    linked = 0.5 * (1 + np.array([math.erf(z / math.sqrt(2)) for z in coupling * scores(given) + free]))
    bins = np.minimum((given * 200).astype(int), 199)
    means = np.bincount(bins, linked, 200) / np.bincount(bins, minlength=200)
    found = ((linked - means[bins]) ** 2).mean() / linked.var()
    for strength in link_strengths(coupling).values():
        assert strength["best_loss"] == pytest.approx(found, abs=0.02)
        assert strength["bits"] == pytest.approx(-math.log2(math.sqrt(1 - coupling**2)))


@pytest.mark.parametrize("objects", [1, 3])
def test_every_sounding_object_is_linked_to_its_own_source(objects):
    config = ScenesConfig(difficulty="easy", min_objects=objects, max_objects=objects, max_sounding=2, coupling=0.95)
    seen, heard = [], []
    for index in range(600):
        plan = _Plan(config, index)
        for j, k in enumerate(np.flatnonzero(plan.sounding)):
            seen.append([plan.objects[k][link.object_index] for link in LINKS if link.object_index in (0, 17, 19)])
            heard.append([plan.sources[j][link.source_index] for link in LINKS if link.object_index in (0, 17, 19)])
    signs = [link.sign for link in LINKS if link.object_index in (0, 17, 19)]
    for column, sign in enumerate(signs):
        a, b = scores([row[column] for row in seen]), scores([row[column] for row in heard])
        assert np.corrcoef(a, b)[0, 1] == pytest.approx(0.95 * sign, abs=0.03)


def test_place_and_rate_are_linked_as_rendered():
    """Higher objects sound faster: measured on the mask, not on the random numbers."""
    config = ScenesConfig(**ONE, coupling=0.95)
    rows, rates = [], []
    for index in range(150):
        scene, plan = generate_scene(config, index), _Plan(config, index)
        y1, y2 = scene.boxes[0, 0, [1, 3]]
        rows.append((y1 + y2) / 2)
        rates.append(plan.sources[0][2])
    assert np.corrcoef(rows, rates)[0, 1] < -0.75


def test_the_inverse_of_a_link_has_the_same_joint_distribution():
    rng = np.random.default_rng(3)
    place = np.array([20.0, 30.0, 10.0])
    seen, back = [], []
    for _ in range(6000):
        visual, source, other = rng.random(32), rng.random(40), rng.random(32)
        place = np.array([10 + 44 * visual[1], 10 + 44 * visual[9], 10.0])
        source = couple_source(source, visual, place, (64, 64), 0.8)
        seen.append(np.concatenate([visual, source]))
        back.append(np.concatenate([couple_object(other, source, 0.8), source]))
    for link in LINKS:
        pairs = [(link.object_index, 32 + link.source_index), (link.object_index, link.object_index)]
        for a, b in pairs:
            found = [np.mean(scores([r[a] for r in rows]) * scores([r[b] for r in rows])) for rows in (seen, back)]
            assert found[0] == pytest.approx(found[1], abs=0.08)


def test_one_modality_is_drawn_anew_given_the_other():
    config = ScenesConfig(**ONE, coupling=0.9)
    frames, waveform, classes = generate_clip(config, 4)
    same_image, other_audio, other = regenerate(config, 4, 1000, "audio")
    assert np.array_equal(frames, same_image)
    assert not np.array_equal(waveform, other_audio)
    other_image, same_audio, _ = regenerate(config, 4, 1000, "image")
    assert np.array_equal(waveform, same_audio)
    assert not np.array_equal(frames, other_image)
    drawn = {int(regenerate(config, 4, 1000 + k, "audio")[2][0]) for k in range(20)}
    assert len(drawn) == 2  # the two classes of the shape
    assert int(classes[0]) in drawn
    with pytest.raises(ValueError, match="max_objects=1"):
        regenerate(ScenesConfig(max_objects=2), 4, 1000, "audio")


def test_objects_of_coupled_scenes_differ_from_the_ground():
    config = ScenesConfig(**ONE, coupling=0.9)
    distances = []
    for index in range(60):
        scene = generate_scene(config, index)
        frame, mask = scene.frames[0] / 255, scene.masks[0, 0]
        distances.append(np.linalg.norm(frame[mask].mean(0) - frame[~mask].mean(0)))
    assert np.median(distances) > 0.6
    assert min(distances) > 0.25
