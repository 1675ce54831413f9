"""Which patches of a modality the encoder sees in pre-training (paper, section 3.4)."""

from typing import NamedTuple

import torch

from .patches_deepavfusion import PatchGrid


class DeepAVFusionMasking(NamedTuple):
    """Which patches of a modality the encoder sees.

    Attributes:
        ids_keep: (B, kept) indices of the visible patches.
        ids_hidden: (B, hidden) indices of the hidden patches.
        ids_restore: (B, n) position of each patch in the shuffled order (visible patches first).
        mask: (B, n) float, 1 = hidden.
    """

    ids_keep: torch.Tensor | None = None
    ids_hidden: torch.Tensor | None = None
    ids_restore: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    @classmethod
    def from_noise(cls, noise: torch.Tensor, num_kept: int) -> "DeepAVFusionMasking":
        """Keep the `num_kept` patches with the smallest noise (B, n), in ascending order of noise."""
        order = torch.argsort(noise, dim=1)
        return cls._from_order(order, torch.argsort(order, dim=1), num_kept, noise.dtype)

    @classmethod
    def from_restore(
        cls, ids_restore: torch.Tensor, num_kept: int, dtype: torch.dtype = torch.float32
    ) -> "DeepAVFusionMasking":
        """Keep the patches whose position in `ids_restore` (B, n) is below `num_kept`; the mask has dtype `dtype`."""
        return cls._from_order(torch.argsort(ids_restore, dim=1), ids_restore, num_kept, dtype)

    @classmethod
    def _from_order(cls, order, ids_restore, num_kept, dtype):
        return cls(order[:, :num_kept], order[:, num_kept:], ids_restore, (ids_restore >= num_kept).to(dtype))


class PatchMasker:
    """Hide a fraction of the patches of a modality. It has no weights.

    Args:
        patches: How the input is cut into patches.
        mask_ratio: Fraction of the patches to hide.

    Raises:
        ValueError: If the mask ratio leaves no patch visible or none hidden.
    """

    def __init__(self, patches: PatchGrid, mask_ratio: float):
        self.patches = patches
        self.num_kept = int(patches.num_patches * (1 - mask_ratio))
        if not 0 < self.num_kept < patches.num_patches:
            raise ValueError(
                f"A mask ratio of {mask_ratio} keeps {self.num_kept} of the {patches.num_patches} patches of "
                f"{patches.name}: expected at least one kept and one hidden."
            )

    def __call__(
        self,
        values: torch.Tensor | None,
        noise: torch.Tensor | None = None,
        num_kept: int | None = None,
        like: torch.Tensor | None = None,
    ) -> DeepAVFusionMasking:
        """Choose the patches to keep.

        Args:
            values: Input of the modality, or None if it is absent: the first patches then count as kept.
            noise: (B, patches); the patches with the smallest noise are kept. Drawn uniformly by default.
            num_kept: Number of patches to keep; by default what the mask ratio leaves.
            like: Input of the other modality, which tells the size of the batch if this one is absent.

        Raises:
            ValueError: If the input or the noise does not have the configured shape, or there are fewer patches than
                `num_kept`.
        """
        if num_kept is None:
            num_kept = self.num_kept
        elif not 0 <= num_kept <= self.patches.num_patches:
            raise ValueError(
                f"Expected 0 to {self.patches.num_patches} visible patches of {self.patches.name}, got {num_kept}."
            )
        if values is None:
            first = torch.arange(self.patches.num_patches, device=like.device)
            return DeepAVFusionMasking.from_restore(first.expand(like.shape[0], -1), num_kept)
        self.patches.check(values)
        expected = (values.shape[0], self.patches.num_patches)
        if noise is None:
            noise = torch.rand(expected, device=values.device)
        elif tuple(noise.shape) != expected:
            raise ValueError(f"The noise of {self.patches.name} has shape {tuple(noise.shape)}: expected {expected}.")
        return DeepAVFusionMasking.from_noise(noise, num_kept)


__all__ = ["DeepAVFusionMasking", "PatchMasker"]
