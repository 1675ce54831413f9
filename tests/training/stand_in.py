"""A small training set for tests of the loop: four classes of tinted noise and a band of sound, made from the index."""

import json

import torch
from torch.utils.data import Dataset

from tests.tiny import RUN

# A recipe for the smallest model that has every part.
TINY_RECIPE = f"""\
# Goal: test the loop.
# Cost: seconds.
# Expected: runs.
command: pretrain
task: {{name: pretraining}}
model: {json.dumps(RUN)}
data: {{name: scenes, train_size: 32, eval_size: 12, num_workers: 0, max_sounding: 1}}
optim: {{mixed_precision: "no", epochs: 2, warmup_epochs: 1, batch_size: 8, base_lr: 1.0e-2, betas: [0.9, 0.95]}}
run: {{log_steps: 3, eval_epochs: 2, save_epochs: 0.5, num_reconstructions: 2, cpu: true}}
"""


class StandInClips(Dataset):
    """Has what the loop uses of a real data set. Clips in `broken` cannot be read; clips in `poisoned` hold a NaN."""

    ceilings = None
    card = "tinted noise"
    reading = "evaluation"

    def __init__(self, model_config, size, train, broken=(), poisoned=()):
        self.config, self.size, self.train = model_config, size, train
        self.broken, self.poisoned = set(broken), set(poisoned)
        self.epoch = 0
        self.read = []

    def __len__(self):
        return self.size

    def set_epoch(self, epoch):
        self.epoch = epoch

    def media(self, i):
        return None

    def __getitems__(self, indices):
        self.read += [(self.epoch, index) for index in indices]
        return [self._clip(index) for index in indices]

    def _clip(self, index):
        if index in self.broken:
            return None, f"clip-{index}.mp4", index
        generator = torch.Generator().manual_seed(index + 1000 * self.epoch * self.train)
        label = index % 4
        image = torch.randn(3, *self.config.frame_size, generator=generator) + label
        sound = torch.randn(1, self.config.num_mel_bins, self.config.spectrogram_length, generator=generator)
        sound[:, label * 8 : label * 8 + 8] += 3.0
        if index in self.poisoned:
            sound[0, 0, 0] = float("nan")
        return (image, sound, label), f"clip-{index}.mp4", index

    def collate(self, samples):
        whole = [(values, path, index) for values, path, index in samples if values is not None]
        batch = {
            "path": [path for _, path, _ in whole],
            "index": torch.tensor([index for _, _, index in whole], dtype=torch.long),
            "broken": [(path, "no decodable frame") for values, path, _ in samples if values is None],
        }
        if whole:
            batch["pixel_values"] = torch.stack([values[0] for values, _, _ in whole])
            batch["input_features"] = torch.stack([values[1] for values, _, _ in whole])
            batch["labels"] = torch.tensor([values[2] for values, _, _ in whole])
        return batch
