"""The cross decoder against attention written out, what a prediction depends on, and what it costs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining
from deepavfusion.masking_deepavfusion import DeepAVFusionMasking
from deepavfusion.patches_deepavfusion import PatchGrid
from deepavfusion.reconstruction_deepavfusion import DECODERS, DeepAVFusionCrossDecoder

from .cases import CASES, make_inputs, make_model
from .test_swin_decoder import make_decoder

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def reference(decoder, encoded, fusion, ids_keep, ids):
    """Predictions (k, values) of the patches `ids` of a sample, from visible patches (kept, D) and tokens (nF, D)."""
    context = torch.cat([decoder.embed(fusion), decoder.embed(encoded) + decoder.position_embeddings[0, ids_keep]])
    states = decoder.mask_token[0] + decoder.position_embeddings[0, ids]
    for layer in decoder.layers:
        attention, heads = layer.attention, layer.attention.num_heads
        normed = layer.layernorm_context(context)
        query = attention.q_proj(layer.layernorm_before(states)).unflatten(-1, (heads, -1))
        key, value = (linear(normed).unflatten(-1, (heads, -1)) for linear in (attention.k_proj, attention.v_proj))
        weights = (torch.einsum("qhd,khd->hqk", query, key) / query.shape[-1] ** 0.5).softmax(-1)
        states = states + attention.o_proj(torch.einsum("hqk,khd->qhd", weights, value).flatten(1))
        states = states + layer.mlp(layer.layernorm_after(states))
    return decoder.predictor(decoder.norm(states))


@pytest.mark.parametrize("num_kept", [0, 9, 35])
def test_decoder_equals_attention_written_out(num_kept):
    """With no visible patch, only fusion tokens are left to attend to; all visible, none is hidden."""
    decoder = make_decoder(DeepAVFusionCrossDecoder, (5, 7))
    generator = torch.Generator().manual_seed(1)
    encoded, fusion = torch.randn(2, num_kept, 32, generator=generator), torch.randn(2, 5, 32, generator=generator)
    masking = DeepAVFusionMasking.from_noise(torch.rand(2, 35, generator=generator), num_kept)
    with torch.no_grad():
        visible, hidden = decoder(encoded, fusion, masking, True)
        nothing, alone = decoder(encoded, fusion, masking, False)
        assert nothing is None
        torch.testing.assert_close(alone, hidden, **CLOSE)
        for sample in range(2):
            ids_keep = masking.ids_keep[sample]
            for found, ids in ((visible, ids_keep), (hidden, masking.ids_hidden[sample])):
                expected = reference(decoder, encoded[sample], fusion[sample], ids_keep, ids)
                torch.testing.assert_close(found[sample], expected, **CLOSE)


@pytest.mark.parametrize(("kind", "independent"), [("cross", True), ("plain", False)])
def test_predictions_do_not_depend_on_which_other_patches_are_hidden(kind, independent):
    decoder = make_decoder(DECODERS[kind], (4, 4))
    generator = torch.Generator().manual_seed(2)
    encoded, fusion = torch.randn(1, 4, 32, generator=generator), torch.randn(1, 5, 32, generator=generator)
    masking = DeepAVFusionMasking.from_noise(torch.rand(1, 16, generator=generator), 4)
    fewer = masking._replace(ids_hidden=masking.ids_hidden[:, [0, 7, 3]])
    with torch.no_grad():
        _, every = decoder(encoded, fusion, masking, False)
        _, some = decoder(encoded, fusion, fewer, False)
    assert torch.allclose(some, every[:, [0, 7, 3]], **CLOSE) == independent


def test_hidden_patches_have_no_effect_and_visible_ones_do():
    model = make_model(DeepAVFusionForPreTraining, **CASES["cross"])
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining)
    with torch.no_grad():
        outputs = model(**inputs)
        hidden = model.unpatchify_image(model.patchify_image(inputs["pixel_values"]) + outputs.image_mask[..., None])
        same = model(**{**inputs, "pixel_values": hidden})
        visible = inputs["pixel_values"] + 1
        other = model(**{**inputs, "pixel_values": visible})
    torch.testing.assert_close(same.image_logits, outputs.image_logits, **CLOSE)
    assert not torch.allclose(other.image_logits, outputs.image_logits, **CLOSE)


def test_a_modality_is_reconstructed_without_any_patch_of_its_own():
    model = make_model(DeepAVFusionForPreTraining, **CASES["cross"]).train()
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining)
    outputs = model(**inputs, num_visible_image_patches=0)
    outputs.loss.backward()
    assert outputs.image_mask.all()
    assert all(p.grad.isfinite().all() for p in model.image_decoder.parameters())
    other = model(**{**inputs, "input_features": inputs["input_features"] + 1}, num_visible_image_patches=0)
    assert not torch.allclose(other.image_logits, outputs.image_logits, **CLOSE)  # it is read from the audio


def test_absent_samples_do_not_count():
    model = make_model(DeepAVFusionForPreTraining, **CASES["cross"])
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining)
    inputs["pixel_values"][1] = float("nan")
    with torch.no_grad():
        outputs = model(**inputs, image_present=torch.tensor([True, False]))
        alone = model(**{name: values[:1] for name, values in inputs.items()})
    torch.testing.assert_close(outputs.image_loss, alone.image_loss, **CLOSE)
    assert outputs.audio_loss.isfinite()


@pytest.mark.parametrize("fraction", [0.5, 1 / 3])
def test_a_random_part_of_the_hidden_patches_is_predicted_in_training(fraction):
    overrides = {**CASES["cross"], "decoder_prediction_fraction": fraction}
    model = make_model(DeepAVFusionForPreTraining, **overrides)
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining)
    with torch.no_grad():
        whole = model(**inputs)
        part = model.train()(**inputs)
    predicted = part.image_logits.ne(0).any(-1)
    assert predicted.sum(1).tolist() == [round(12 * fraction)] * 2
    assert part.image_mask[predicted].all()
    assert predicted[0].tolist() != predicted[1].tolist()
    torch.testing.assert_close(part.image_logits[predicted], whole.image_logits[predicted], **CLOSE)
    targets = model.patchify_image(inputs["pixel_values"])[predicted]
    targets = (targets - targets.mean(1, keepdim=True)) / (targets.var(1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(part.image_loss, (part.image_logits[predicted] - targets).square().mean(), **CLOSE)
    assert whole.image_logits.ne(0).any(-1).all()


def decoder_flops(kind: str, fraction: float = 1.0) -> int:
    """Floating-point operations of the image decoder of the base model in a training step's forward pass."""
    config = DeepAVFusionConfig(image_decoder_type=kind, decoder_prediction_fraction=fraction)
    config._attn_implementation = "eager"
    decoder = DECODERS[kind](config, PatchGrid.of_image(config)).to("meta").train()
    with torch.device("meta"):
        masking = DeepAVFusionMasking.from_noise(torch.rand(1, 196), 49)
        values, encoded, fusion = torch.rand(1, 3, 224, 224), torch.rand(1, 49, 768), torch.rand(1, 32, 768)
        with FlopCounterMode(display=False) as counter:
            decoder.reconstruct(values, masking, encoded, fusion, predict_visible=False)
    return counter.get_total_flops()


def test_it_computes_less_than_the_plain_decoder():
    """At the published size: 1.7 times less for all hidden patches, 3.0 for half of them, 4.2 for a third."""
    plain = decoder_flops("plain")
    assert 1.5 < plain / decoder_flops("cross") < 1.9
    assert 2.5 < plain / decoder_flops("cross", 0.5) < 3.7
    assert 3.7 < plain / decoder_flops("cross", 1 / 3) < 4.5
