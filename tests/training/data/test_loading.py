"""Order of clips and masks: functions of seed and position, whatever the number of processes."""

import os
import signal

import pytest
import torch

from deepavfusion.training.data.loading import (
    BatchPlace,
    BrokenClips,
    BrokenDataError,
    ClipOrder,
    DeadWorkerError,
    EpochClips,
    evaluation_loader,
    evaluation_noise,
    mask_noise,
    naming_dead_workers,
    training_loader,
)
from deepavfusion.training.data.random import Stream
from deepavfusion_cli.errors import outcome
from tests.training.stand_in import StandInClips


def order(**changes):
    settings = {
        "num_clips": 10,
        "batch_size": 4,
        "accumulation": 1,
        "processes": 1,
        "process": 0,
        "seed": 0,
        "start_step": 0,
        "end_step": 5,
    }
    return ClipOrder(**{**settings, **changes})


def test_every_clip_comes_once_an_epoch_in_an_order_of_its_own():
    stream = [key for batch in order() for key in batch]
    epochs = [[clip for epoch, clip in stream if epoch == e] for e in range(2)]
    assert len(stream) == 20
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    assert [key for batch in order(seed=1) for key in batch] != stream


def test_a_resumed_order_goes_on_where_it_stopped():
    assert list(order(start_step=3)) == list(order())[3:]
    assert len(order(start_step=3, accumulation=2)) == len(order(accumulation=2)) == 10  # those of the whole run


def test_groups_of_clips_stay_together_over_the_ends_of_epochs():
    settings = {"num_clips": 6, "batch_size": 4, "group": 2, "end_step": 3}
    batches = [[clip for _, clip in batch] for batch in order(**settings)]
    assert sorted(sum(batches, [])) == sorted([*range(6), *range(6)])
    assert sum(batches, [])[:6] != list(range(6))
    assert all(batch[k + 1] == batch[k] + 1 and batch[k] % 2 == 0 for batch in batches for k in (0, 2))
    parts = [list(order(**{**settings, "batch_size": 2}, processes=2, process=p)) for p in range(2)]
    assert [sum(pair, []) for pair in zip(*parts)] == list(order(**settings))


@pytest.mark.parametrize(("clips", "batch"), [(24, 5), (23, 4)])
def test_batches_hold_whole_groups(clips, batch):
    with pytest.raises(ValueError, match=f"got {batch}"):
        order(num_clips=clips, batch_size=batch, group=2)
    with pytest.raises(ValueError, match="cannot be sampled by weights"):
        order(group=2, weights=torch.ones(10))


def test_weights_decide_how_often_clips_are_drawn():
    weights = torch.tensor([1.0, 0.0, 9.0, 0.0]).repeat(1000)
    settings = {"num_clips": 4000, "batch_size": 10, "end_step": 800, "weights": weights}
    keys = [key for batch in order(**settings) for key in batch]
    for epoch in range(2):
        kinds = torch.tensor([clip for e, clip in keys if e == epoch]) % 4
        assert len(kinds) == 4000
        assert set(kinds.tolist()) == {0, 2}
        assert (kinds == 2).float().mean() == pytest.approx(0.9, abs=0.02)
    assert [key for batch in order(**settings, seed=1) for key in batch] != keys
    assert list(order(**settings, start_step=500)) == list(order(**settings))[500:]


def test_places_of_batches_have_generators_of_their_own():
    places = [
        BatchPlace(0, step, micro, order(accumulation=2, processes=2, process=process))
        for step in (3, 4)
        for micro in (0, 1)
        for process in (0, 1)
    ]
    seeds = {
        place.generator(stream).initial_seed() for place in places for stream in (Stream.MIXUP, Stream.MODALITY_DROPOUT)
    }
    assert len(seeds) == 16
    assert places[0].generator(Stream.MIXUP).initial_seed() in seeds


def test_processes_and_accumulation_share_the_same_batches():
    one = [sorted(a + b) for a, b in zip(*[iter(list(order(batch_size=2, accumulation=2)))] * 2)]
    two = [sorted(a + b) for a, b in zip(*[list(order(batch_size=2, processes=2, process=p)) for p in range(2)])]
    assert one == two == [sorted(batch) for batch in order()]


def test_masks_are_shared_like_the_clips():
    whole = mask_noise(0, 7, 0, order(), (6, 5))
    assert [part.shape for part in whole] == [(4, 6), (4, 5)]
    halves = [mask_noise(0, 7, 0, order(batch_size=2, processes=2, process=p), (6, 5)) for p in range(2)]
    micros = [mask_noise(0, 7, m, order(batch_size=2, accumulation=2), (6, 5)) for m in range(2)]
    for parts in (halves, micros):
        assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
        assert torch.equal(torch.cat([part[1] for part in parts]), whole[1])
    assert not torch.equal(mask_noise(0, 8, 0, order(), (6, 5))[0], whole[0])


def test_evaluation_masks_belong_to_the_clip():
    image, audio = evaluation_noise(0, torch.tensor([3, 1, 3]), (6, 5))
    assert torch.equal(image[0], image[2])
    assert torch.equal(audio[0], audio[2])
    assert not torch.equal(image[0], image[1])
    assert not torch.equal(evaluation_noise(1, torch.tensor([3]), (6, 5))[0][0], image[0])


class Sizes:
    frame_size, num_mel_bins, spectrogram_length = (4, 4), 32, 2


def test_a_batch_may_span_epochs_and_keeps_their_augmentations():
    clips = StandInClips(Sizes, 10, train=True)
    keys = [(0, 3), (1, 5), (0, 7), (1, 3)]
    samples = EpochClips(clips).__getitems__(keys)
    assert [sample[2] for sample in samples] == [3, 5, 7, 3]
    assert set(clips.read) == set(keys)
    assert not torch.equal(samples[0][0][0], samples[3][0][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_training_loader_gives_the_order(workers):
    batches = list(training_loader(StandInClips(Sizes, 10, train=True), order(), workers))
    assert [batch["index"].tolist() for batch in batches] == [[clip for _, clip in keys] for keys in order()]


@pytest.mark.parametrize(("size", "processes"), [(10, 1), (10, 2), (10, 3), (2, 3)])
def test_evaluation_loaders_cover_all_clips_with_equally_many_batches(size, processes):
    clips = StandInClips(Sizes, size, train=False)
    loaders = [list(evaluation_loader(clips, 2, processes, p, 0)) for p in range(processes)]
    assert len({len(batches) for batches in loaders}) == 1
    assert {i for batches in loaders for batch in batches for i in batch["index"].tolist()} == set(range(size))


class Dying(StandInClips):
    """The worker that reads clip 5 is killed; clips have names."""

    def __getitems__(self, indices):
        if 5 in indices:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitems__(indices)

    def describe(self, i):
        return f"clip-{i}.mp4"


def test_the_death_of_a_worker_while_others_start_names_its_clips(monkeypatch):
    clips = Dying(Sizes, 10, train=False)
    loader = evaluation_loader(clips, 4, 1, 0, 2)
    loader.noted.notes[0, :3] = torch.tensor([123456, 1, 5])

    def fail(self):
        raise RuntimeError("DataLoader worker (pid 123456) is killed by signal: Killed.")

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", fail)
    with pytest.raises(DeadWorkerError, match="The clip that it held:") as caught:
        list(loader)
    assert clips.describe(5) in str(caught.value)


@pytest.mark.parametrize("training", [True, False])
def test_the_death_of_a_worker_names_the_clips_that_it_held(training):
    clips = Dying(Sizes, 10, train=training)
    loader = training_loader(clips, order(), 2) if training else evaluation_loader(clips, 4, 1, 0, 2)
    held = next([clip for _, clip in keys] for keys in order() if 5 in [clip for _, clip in keys])
    expected = held if training else [4, 5, 6, 7]
    with pytest.raises(DeadWorkerError, match="a process that reads data ended .*The clips that it held:") as caught:
        list(loader)
    assert str(caught.value).splitlines()[1:] == [f"  clip-{i}.mp4" for i in expected]
    assert outcome(caught.value) == (1, str(caught.value))


def test_a_death_that_is_noticed_elsewhere_names_the_clips_too():
    loader = evaluation_loader(Dying(Sizes, 8, train=False), 4, 1, 0, 1)
    noted = loader.noted
    noted.notes[0, :6] = torch.tensor([4321, 3, 2, 7, 1, 9])
    with pytest.raises(DeadWorkerError, match=r"clip-2.mp4\n  clip-7.mp4\n  clip-1.mp4$"), naming_dead_workers():
        raise RuntimeError("DataLoader worker (pid(s) 17, 4321) exited unexpectedly")
    with pytest.raises(RuntimeError, match="pid 17"), naming_dead_workers():  # of another loader
        raise RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. ")
    with pytest.raises(RuntimeError, match="4321"), naming_dead_workers():
        raise RuntimeError("4321")


def test_broken_clips_are_counted_once_named_and_limited():
    broken = BrokenClips(150, 0.02)
    assert broken.add([("a.mp4", "no frame"), ("a.mp4", "no frame")]) == ["skipped, cannot be read: a.mp4: no frame"]
    assert broken.add([("a.mp4", "no frame")]) == []
    broken.add([("b.mp4", "empty"), ("c.mp4", "empty")])
    with pytest.raises(BrokenDataError, match="(?s)4 of 150 clips.*a.mp4: no frame.*b.mp4: empty.*d.mp4: text$"):
        broken.add([("d.mp4", "text")])


@pytest.mark.parametrize("num_clips", [*range(1, 20), 99, 100, 399, 400, 1000])
@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 1])
def test_a_few_clips_may_be_broken_in_small_splits_unless_none_may(num_clips, fraction):
    most = BrokenClips(num_clips, fraction).most
    if fraction == 0:
        assert most == 0
    else:
        assert most == max(int(fraction * num_clips), min(3, num_clips // 2))
    broken = BrokenClips(num_clips, fraction)
    assert len(broken.add([(str(i), "text") for i in range(most)])) == most
    with pytest.raises(BrokenDataError):
        broken.add([("one more", "text")])


def test_the_first_broken_clip_comes_with_the_command_that_finds_all():
    class Clips(list):
        check = "deepavfusion data check folder videos"

    broken = BrokenClips.of(Clips(range(16)), 0.01)
    first = broken.add([("a.mp4", "empty")])
    assert first[1:] == [f"`{Clips.check}` reads every clip and lists all that cannot be read; up to 3 may be."]
    assert len(broken.add([("b.mp4", "empty")])) == 1
    with pytest.raises(BrokenDataError, match=f"There may be more: `{Clips.check}` reads every clip and lists all"):
        broken.add([("c.mp4", "empty"), ("d.mp4", "empty")])
