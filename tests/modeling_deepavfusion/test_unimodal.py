"""Towers that start from unimodal autoencoders."""

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining, DeepAVFusionModel, load_unimodal
from tests.tiny import INFERABLE, INFERABLE_DECODER


def mae_file(channels, dim=64, layers=2, hidden=128):
    """A file in the layout of MAE and AudioMAE, with parts that are to be dropped."""
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 7, dim),
        "patch_embed.proj.weight": (dim, channels, 16, 16),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "mask_token": (1, 1, 32),
        "decoder_embed.weight": (32, dim),
        "decoder_blocks.0.norm1.weight": (32,),
    }
    for index in range(layers):
        for name, shape in {
            "norm1": (dim,),
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "norm2": (dim,),
            "mlp.fc1": (hidden, dim),
            "mlp.fc2": (dim, hidden),
        }.items():
            shapes[f"blocks.{index}.{name}.weight"] = shape
            shapes[f"blocks.{index}.{name}.bias"] = shape[:1]
    return {"model": {name: torch.randn(shape) for name, shape in shapes.items()}}


def test_from_masked_autoencoder_files(tmp_path):
    image, audio = mae_file(3), mae_file(1)
    torch.save(image, tmp_path / "mae.pth")
    model = DeepAVFusionModel.from_unimodal_pretrained(
        image=tmp_path / "mae.pth", audio=audio, config=DeepAVFusionConfig(**INFERABLE)
    )
    attention = model.image.layers[1].attention
    fused = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    assert torch.equal(fused, image["model"]["blocks.1.attn.qkv.weight"])
    assert torch.equal(model.audio.patch_embed.projection.weight, audio["model"]["patch_embed.proj.weight"])
    assert torch.equal(model.audio.layers[0].mlp.fc2.bias, audio["model"]["blocks.0.mlp.fc2.bias"])


@pytest.mark.parametrize(("inflate", "gain"), [("repeat", 2.0), ("mean", 1.0)])
def test_inflation_to_video(inflate, gain):
    """The response to a patch of a still video is the image's, or twice that."""
    image = mae_file(3)
    model = DeepAVFusionModel(DeepAVFusionConfig(**{**INFERABLE, "num_frames": 4}))
    load_unimodal(model, image=image, inflate=inflate)
    weight, expected = model.image.patch_embed.projection.weight, image["model"]["patch_embed.proj.weight"]
    torch.testing.assert_close(weight.sum(dim=2), gain * expected)
    with pytest.raises(ValueError, match="expected 'repeat' or 'mean'"):
        load_unimodal(model, image=image, inflate="tile")


def test_divided_video_towers_keep_their_attention_over_time():
    image = mae_file(3)
    model = DeepAVFusionModel(DeepAVFusionConfig(**{**INFERABLE, "num_frames": 4, "video_attention": "divided"}))
    before = model.image.layers[1].temporal_dense.weight.clone()
    load_unimodal(model, image=image)
    assert torch.equal(model.image.layers[1].temporal_dense.weight, before)
    assert torch.equal(model.image.layers[1].mlp.fc1.weight, image["model"]["blocks.1.mlp.fc1.weight"])


@pytest.mark.parametrize("cls", [ViTMAEModel, ViTMAEForPreTraining])
def test_from_hub_folder(tmp_path, cls):
    values = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 128}
    values |= {"image_size": 32, "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1}
    source = cls(ViTMAEConfig(**values, decoder_num_attention_heads=1, decoder_intermediate_size=64))
    source.save_pretrained(tmp_path)
    model = DeepAVFusionForPreTraining(DeepAVFusionConfig(**INFERABLE, **INFERABLE_DECODER))
    load_unimodal(model, image=tmp_path)
    vit = getattr(source, "vit", source)
    tower = model.deepavfusion.image
    assert torch.equal(tower.patch_embed.projection.weight, vit.embeddings.patch_embeddings.projection.weight)
    assert torch.equal(tower.norm.weight, vit.layernorm.weight)
    pixels = torch.randn(1, 6, 64)
    attended = tower.layers[0](pixels)[0]
    layer = dict(vit.named_modules()).get("layers.0") or dict(vit.named_modules())["encoder.layer.0"]
    expected = layer(pixels)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(attended, expected, rtol=1e-4, atol=1e-4)


def test_a_tower_that_does_not_fit_is_refused():
    model = DeepAVFusionModel(DeepAVFusionConfig(**INFERABLE))
    with pytest.raises(ValueError, match="does not fit the image tower"):
        load_unimodal(model, image=mae_file(1))
    with pytest.raises(ValueError, match=r"audio tower.*Missing: layers\.1"):
        load_unimodal(model, audio=mae_file(1, layers=1))
    unknown = mae_file(3)
    unknown["model"]["blocks.0.gamma"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"unknown tensors blocks\.0\.gamma"):
        load_unimodal(model, image=unknown)


def test_sources_that_are_not_there_or_not_whole(tmp_path):
    model = DeepAVFusionModel(DeepAVFusionConfig(**INFERABLE))
    with pytest.raises(FileNotFoundError, match=r"There is no file .*absent\.pth"):
        load_unimodal(model, image=tmp_path / "absent.pth")
    values = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 128, "image_size": 32}
    ViTMAEModel(ViTMAEConfig(**values, num_hidden_layers=1)).save_pretrained(tmp_path)
    ViTMAEConfig(**values, num_hidden_layers=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is not a whole ViTMAEModel: 16 missing, .*layer.*1\."):
        load_unimodal(model, image=tmp_path)
