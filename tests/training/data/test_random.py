"""Random streams of a run: reproducible, and no two alike."""

import itertools

import numpy as np
import pytest
import torch

from deepavfusion.training.data.random import Stream, generator

# How many numbers make a position, as `Stream` documents.
POSITIONS = {
    Stream.ORDER: 1,
    Stream.MASKS: 1,
    Stream.EVALUATION_MASKS: 1,
    Stream.DROPOUT: 2,
    Stream.MIXUP: 3,
    Stream.BALANCED_ORDER: 1,
    Stream.MODALITY_DROPOUT: 3,
    Stream.MIXTURE_PARTNERS: 2,
    Stream.AUGMENTATION: 2,
    Stream.SCENE_PARTNERS: 2,
    Stream.FOREIGN_AUDIO: 2,
    Stream.SCENE_PAIRS: 2,
    Stream.MASK_SETTINGS: 1,
    Stream.WINDOWS: 3,
    Stream.LABELED_FRAMES: 2,
    Stream.NOISE: 1,
}
# Held-out scenes are not augmented, and none of the other streams is used for them.
HELD_OUT = {Stream.EVALUATION_PARTNERS}


def test_no_two_streams_collide():
    places = [
        (seed, stream, *position)
        for seed in range(3)
        for stream, length in POSITIONS.items()
        for position in itertools.product(range(32 if length == 1 else 4), repeat=length)
    ]
    assert {stream for _, stream, *_ in places} == set(Stream) - HELD_OUT
    assert len({generator(*place).initial_seed() for place in places}) == len(places)


def test_pairs_of_recorded_evaluations_stay_the_same():
    def recorded(scene):
        words = np.random.SeedSequence((1 << 32, 0, scene)).generate_state(1, np.uint64)
        return int(words[0] >> np.uint64(1))

    seeds = [generator(0, Stream.EVALUATION_PARTNERS, scene).initial_seed() for scene in range(100)]
    assert seeds == [recorded(scene) for scene in range(100)]
    assert len(set(seeds)) == 100


def test_a_generator_depends_on_its_arguments_alone():
    first, second = (torch.rand(4, generator=generator(5, Stream.MASKS, 2)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(4, generator=generator(2, Stream.MASKS, 5)))


@pytest.mark.parametrize(
    ("stream", "position", "expected"),
    [
        (Stream.ORDER, (2,), 6905783296620332779),
        (Stream.MASKS, (2,), 8764810008325594656),
        (Stream.DROPOUT, (2, 1), 2495205282898614377),
        (Stream.AUGMENTATION, (2, 1), 6442943914433913233),
    ],
)
def test_recorded_pretraining_runs_stay_reproducible(stream, position, expected):
    assert generator(7, stream, *position).initial_seed() == expected
