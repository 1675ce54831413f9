"""What is timed: the cases, and the forms that are compared in each."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining, DeepAVFusionModel
from deepavfusion.fusion_deepavfusion import DeepAVFusionFusionLayer
from deepavfusion.inference.precision import fast_bfloat16

from ..references import published, textbook


@dataclass(frozen=True)
class Case:
    """A module to build and a call to time.

    Attributes:
        goal: What the case shows.
        part: "block" (one fusion layer), "encoder" or "pretraining".
        batch: Samples per call.
        backward: Whether the call includes the backward pass.
        overrides: Configuration overrides.
        masked: Whether the encoder sees only the patches that masked pre-training keeps.
        scale: Factor on the number of patches of both modalities (blocks only).
    """

    goal: str
    part: str
    batch: int
    backward: bool
    overrides: dict
    masked: bool = False
    scale: float = 1.0


PARTS = {"block": DeepAVFusionFusionLayer, "encoder": DeepAVFusionModel, "pretraining": DeepAVFusionForPreTraining}
DENSE, FACTORIZED = {"fusion_type": "dense"}, {"fusion_type": "factorized"}
CASES = {
    "dense_block": Case("dense fusion block alone, forward", "block", 1, False, DENSE),
    "dense_block_training": Case("dense fusion block alone, forward and backward", "block", 1, True, DENSE),
    "dense_block_half": Case("growth: half the patches of each modality", "block", 1, False, DENSE, scale=0.5),
    "dense_block_double": Case("growth: twice the patches of each modality", "block", 1, False, DENSE, scale=2.0),
    "dense_encoder": Case("dense encoder, forward", "encoder", 1, False, DENSE),
    "factorized_encoder": Case("factorized encoder, forward", "encoder", 2, False, FACTORIZED),
    "masked_encoder": Case("masked encoder, forward and backward", "encoder", 8, True, FACTORIZED, True),
    "pretraining_step": Case("pre-training step, forward and backward", "pretraining", 8, True, FACTORIZED),
}


@dataclass(frozen=True)
class Form:
    """A form of a module.

    Attributes:
        code: "ours", "textbook" or "published".
        bfloat16: Whether it computes in bfloat16, by autocast.
        compiled: Whether it is compiled by `torch.compile`, as recipes do it on GPUs.
    """

    code: str
    bfloat16: bool = False
    compiled: bool = False


FORMS = {
    "ours": Form("ours"),
    "ours, bfloat16": Form("ours", bfloat16=True),
    "ours, compiled": Form("ours", compiled=True),
    "ours, bfloat16, compiled": Form("ours", bfloat16=True, compiled=True),
    "textbook": Form("textbook"),
    "published": Form("published"),
    "published, bfloat16": Form("published", bfloat16=True),
}


def forms_of(case: Case, args) -> dict[str, Form]:
    """The forms of a case that are compared, by name."""
    codes = ["ours", "textbook"]
    if args.published is not None and case.part != "block":
        codes.append("published")
    both = args.dtype == "float32" and fast_bfloat16(args.device)
    return {
        name: form
        for name, form in FORMS.items()
        if form.code in codes and (both or not form.bfloat16) and (args.compile or not form.compiled)
    }


class Workload:
    """Module of a case, in both forms, with inputs."""

    def __init__(self, case: Case, size: str, device: str, dtype: torch.dtype, seed: int = 0):
        torch.manual_seed(seed)
        self.case = case
        self.config = config = DeepAVFusionConfig.from_size(size, **case.overrides)
        config._attn_implementation = "sdpa"
        self.device, self.dtype = device, dtype
        with torch.device(device):
            module = PARTS[case.part](config)
        self.module = module.to(device, dtype)
        self.module.train(case.backward)
        self.inputs = self._inputs()
        self._eager: dict[str, nn.Module] = {}

    def _inputs(self) -> tuple[tuple, dict]:
        case, config, batch = self.case, self.config, self.case.batch
        counts = [torch.Size(grid).numel() for grid in (config.image_grid, config.audio_grid)]

        def random(*shape):
            return torch.randn(*shape, device=self.device, dtype=self.dtype)

        if case.part == "block":
            tokens = [config.num_all_fusion_tokens, *(int(n * case.scale) for n in counts)]
            return tuple(random(batch, n, config.hidden_size) for n in tokens), {}
        pixel_values = random(batch, config.num_channels, *config.frame_size)
        values = (pixel_values, random(batch, 1, config.num_mel_bins, config.spectrogram_length))
        if not case.masked:
            return values, {}
        ratios = (config.image_mask_ratio, config.audio_mask_ratio)
        kept = [int(n * (1 - r)) for n, r in zip(counts, ratios, strict=True)]
        ids = [torch.rand(batch, n, device=self.device).argsort(1)[:, :k] for n, k in zip(counts, kept, strict=True)]
        return values, {"image_ids_keep": ids[0], "audio_ids_keep": ids[1]}

    def build(self, form: Form, published_code: Path | None = None) -> nn.Module:
        """The module itself ("ours"), its textbook form, or that of the published code; compiled if the form is.

        Forms of the same code share a module.
        """
        if form.code not in self._eager:
            if form.code == "published":
                module = published(self.module, published_code)
            else:
                module = self.module if form.code == "ours" else textbook(self.module)
            self._eager[form.code] = module
        module = self._eager[form.code]
        return torch.compile(module) if form.compiled else module

    def call(self, module: nn.Module, bfloat16: bool = False) -> None:
        """Run the forward pass, and the backward pass if the case includes it; `bfloat16` does so by autocast."""
        args, kwargs = self.inputs
        with torch.set_grad_enabled(self.case.backward):
            with torch.autocast(self.device, torch.bfloat16) if bfloat16 else contextlib.nullcontext():
                outputs = module(*args, **kwargs)
            if self.case.backward:
                module.zero_grad(set_to_none=True)
                if self.case.part == "pretraining":
                    outputs.loss.backward()
                else:
                    outputs = outputs[:1] if self.case.part == "block" else outputs.to_tuple()
                    sum(x.float().square().mean() for x in outputs).backward()


__all__ = ["CASES", "FORMS", "Case", "Form", "Workload", "forms_of"]
