"""The shifted-window decoder against attention written out patch by patch."""

import pytest
import torch

from deepavfusion.masking_deepavfusion import DeepAVFusionMasking
from deepavfusion.patches_deepavfusion import PatchGrid
from deepavfusion.reconstruction_deepavfusion import DECODERS, DeepAVFusionSwinDecoder
from tests.tiny import tiny_config

GRIDS = [(8, 8), (8, 12), (6, 10), (5, 7), (9, 4), (3, 5), (1, 6)]


def make_decoder(decoder_class, grid):
    config = tiny_config()
    config._attn_implementation = "eager"
    # Patches of 12 values: 2 x 2 pixels of 3 channels.
    patches = PatchGrid("pixel_values", (*grid[:-2], 3, 2 * grid[-2], 2 * grid[-1]), (*(1,) * (len(grid) - 2), 2, 2))
    decoder = decoder_class(config, patches).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return decoder


def window_of(row, column, grid, window, shift):
    """Place of a patch in the shifted grid, padded to whole windows: window, place in it, whether it went around."""
    found = []
    for place, side in ((row, grid[0]), (column, grid[1])):
        padded = -(-side // window) * window
        moved = (place - shift) % padded
        found.append((moved // window, moved % window, place < shift))
    (rows, r, around), (columns, c, across) = found
    return (rows, columns), (r, c), (around, across)


def reference_layer(layer, patches, fusion, grid, shifted):
    """One layer over (n, d) patches and (nF, d) fusion tokens of a sample, a query and a window at a time."""
    window = min(4, *grid)
    shift = window // 2 if shifted and min(grid) > 4 else 0
    attention, heads = layer.attention, layer.num_heads
    normed = layer.layernorm_before(torch.cat([patches, fusion]))
    query, key, value = (
        projection(normed).view(len(normed), heads, -1)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    places = [window_of(i // grid[1], i % grid[1], grid, window, shift) for i in range(len(patches))]
    windows = sorted({place[0] for place in places})
    tokens = list(range(len(patches), len(normed)))

    def attend(index, keys, biases):
        scores = torch.einsum("hd,khd->kh", query[index], key[keys]) * attention.scaling + torch.stack(biases)
        return torch.einsum("kh,khd->hd", scores.softmax(0), value[keys]).flatten()

    no_bias = torch.zeros(heads)
    gathered = []
    for index, (own_window, (r, c), own_side) in enumerate(places):
        keys, biases = [], []
        for other, (other_window, (s, d), side) in enumerate(places):
            if other_window == own_window and side == own_side:
                keys.append(other)
                span = 2 * window - 1
                biases.append(layer.relative_position_bias_table[(r - s + window - 1) * span + c - d + window - 1])
        gathered.append(attend(index, keys + tokens, biases + [no_bias] * len(tokens)))
    for token in tokens:
        per_window = []
        for wanted in windows:
            keys = [other for other, place in enumerate(places) if place[0] == wanted] + tokens
            per_window.append(attend(token, keys, [no_bias] * len(keys)))
        gathered.append(torch.stack(per_window).mean(0))
    states = torch.cat([patches, fusion]) + attention.o_proj(torch.stack(gathered))
    states = states + layer.mlp(layer.layernorm_after(states))
    return states[: len(patches)], states[len(patches) :]


@pytest.mark.parametrize("grid", GRIDS)
def test_decoder_equals_attention_written_out(grid):
    decoder = make_decoder(DeepAVFusionSwinDecoder, grid)
    generator = torch.Generator().manual_seed(1)
    patches, kept = grid[0] * grid[1], max(1, grid[0] * grid[1] // 3)
    encoded, fusion = torch.randn(2, kept, 32, generator=generator), torch.randn(2, 5, 32, generator=generator)
    masking = DeepAVFusionMasking.from_noise(torch.rand(2, patches, generator=generator), kept)
    with torch.no_grad():
        visible, hidden = decoder(encoded, fusion, masking, True)
        for sample in range(2):
            states = decoder.mask_token[0].repeat(patches, 1)
            states[masking.ids_keep[sample]] = decoder.embed(encoded[sample])
            states, tokens = states + decoder.position_embeddings[0], decoder.embed(fusion[sample])
            for index, layer in enumerate(decoder.layers):
                states, tokens = reference_layer(layer, states, tokens, grid, shifted=index % 2 == 1)
            expected = decoder.predictor(decoder.norm(states))
            torch.testing.assert_close(visible[sample], expected[masking.ids_keep[sample]], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(hidden[sample], expected[masking.ids_hidden[sample]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decoder_class", DECODERS.values())
def test_patches_keep_their_places(decoder_class):
    """Visible patches are decoded at their places: predictions follow the patches, in any order kept."""
    grid = (8, 8)
    decoder = make_decoder(decoder_class, grid)
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(1, 64, generator=generator)
    encoded, fusion = torch.randn(1, 64, 32, generator=generator), torch.randn(1, 5, 32, generator=generator)
    masking = DeepAVFusionMasking.from_noise(noise, 16)
    other = DeepAVFusionMasking(masking.ids_keep.flip(1), masking.ids_hidden, None, masking.mask)
    order = torch.cat([other.ids_keep, other.ids_hidden], dim=1)
    other = other._replace(ids_restore=order.argsort(dim=1))
    with torch.no_grad():
        visible, hidden = decoder(encoded[:, :16], fusion, masking, True)
        flipped, same = decoder(encoded[:, :16].flip(1), fusion, other, True)
    torch.testing.assert_close(flipped.flip(1), visible, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same, hidden, rtol=1e-4, atol=1e-5)


def test_frames_of_a_video_are_decoded_apart():
    """Windows lie within a frame; frames interact only through the fusion tokens."""
    decoder = make_decoder(DeepAVFusionSwinDecoder, (2, 4, 8))
    generator = torch.Generator().manual_seed(3)
    patches, fusion = torch.randn(1, 64, 16, generator=generator), torch.randn(1, 5, 16, generator=generator)
    changed = patches.clone()
    changed[:, 32:] += 1
    with torch.no_grad():
        before, _ = decoder.layers[0](patches, fusion)
        after, _ = decoder.layers[0](changed, fusion)
    assert torch.equal(before[:, :32], after[:, :32])
    assert not torch.allclose(before[:, 32:], after[:, 32:])
