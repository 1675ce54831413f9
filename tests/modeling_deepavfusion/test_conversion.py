"""Published checkpoints, both ways, and towers from unimodal autoencoders."""

import json

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
    export_original_state_dict,
    load_original_checkpoint,
    load_unimodal,
)
from deepavfusion.conversion_deepavfusion import published_layout
from deepavfusion.training import convert
from tests.golden_files import golden_path

TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 128,
    "num_fusion_attention_heads": 1,
    "image_size": [32, 48],
    "num_mel_bins": 32,
    "spectrogram_length": 80,
}
DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_attention_heads": 1,
    "decoder_intermediate_size": 64,
    "decoder_num_hidden_layers": 2,
}
WIDE = {**TINY, "hidden_size": 128, "num_attention_heads": 2, "num_fusion_attention_heads": 2}
VARIANTS = {
    "encoder": (DeepAVFusionModel, TINY),
    "dense": (DeepAVFusionModel, {**TINY, "fusion_type": "dense", "fusion_attention_ratio": 0.5}),
    "token": (DeepAVFusionModel, {**TINY, "fusion_type": "token", "fusion_layers": [1]}),
    "video": (DeepAVFusionModel, {**TINY, "num_frames": 4}),
    "divided": (DeepAVFusionModel, {**TINY, "num_frames": 4, "video_attention": "divided"}),
    "pretraining": (DeepAVFusionForPreTraining, {**TINY, **DECODER}),
    "swin": (
        DeepAVFusionForPreTraining,
        {**TINY, **DECODER, "image_size": 80, "image_decoder_type": "swin", "audio_decoder_type": "swin"},
    ),
    "classification": (DeepAVFusionForAudioVisualClassification, {**TINY, "num_labels": 5}),
    "probe": (
        DeepAVFusionForAudioVisualClassification,
        {**TINY, "num_labels": 5, "classifier_input_norm": True},
    ),
    "separation": (DeepAVFusionForSourceSeparation, TINY),
    "segmentation": (DeepAVFusionForSemanticSegmentation, {**WIDE, "num_labels": 3}),
}


def make_model(variant):
    torch.manual_seed(0)
    cls, values = VARIANTS[variant]
    model = cls(DeepAVFusionConfig(**values)).eval()
    for tensor in model.state_dict().values():  # zeros and ones would hide a swap
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_with_inferred_configuration(variant):
    model = make_model(variant)
    published = export_original_state_dict(model)
    again = load_original_checkpoint({f"module.{name}": tensor for name, tensor in published.items()})
    assert type(again) is type(model)
    assert not again.training
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)
    inferred = {key: getattr(again.config, key) for key in VARIANTS[variant][1]}
    assert inferred == VARIANTS[variant][1]
    back = export_original_state_dict(again)
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in published.items())


@pytest.fixture(scope="module")
def published_shapes():
    return json.loads(golden_path("official_state_dict_shapes.json").read_text())


RELEASES = {
    "deepavfusion_vitb_vggsound_ep200": {},
    "deepavfusion_vitb_as2m_ep200": {"fusion_attention_ratio": 1.0, "fusion_mlp_ratio": 4.0},
}
RELEASED_MODELS = [
    ("deepavfusion_vitb_vggsound_ep200", "pretraining", DeepAVFusionForPreTraining, {}),
    ("deepavfusion_vitb_as2m_ep200", "pretraining", DeepAVFusionForPreTraining, {}),
    (
        "deepavfusion_vitb_vggsound_ep200",
        "classification_vggsound_310",
        DeepAVFusionForAudioVisualClassification,
        {"num_labels": 310},
    ),
    (
        "deepavfusion_vitb_vggsound_ep200",
        "linear_probe_vggsound_310",
        DeepAVFusionForAudioVisualClassification,
        {"num_labels": 310, "classifier_input_norm": True},
    ),
    ("deepavfusion_vitb_vggsound_ep200", "source_separation", DeepAVFusionForSourceSeparation, {}),
    (
        "deepavfusion_vitb_vggsound_ep200",
        "segmentation_binary",
        DeepAVFusionForSemanticSegmentation,
        {"num_labels": 1},
    ),
    (
        "deepavfusion_vitb_vggsound_ep200",
        "segmentation_semantic_71",
        DeepAVFusionForSemanticSegmentation,
        {"num_labels": 71},
    ),
]


@pytest.mark.parametrize(("release", "kind", "cls", "overrides"), RELEASED_MODELS, ids=lambda x: str(x)[:40])
def test_released_names_and_shapes(published_shapes, release, kind, cls, overrides):
    """At full base size, without memory: names and shapes alone, on meta tensors."""
    expected = published_shapes[f"{release}/{kind}"]
    config = DeepAVFusionConfig(**RELEASES[release], **overrides)
    with torch.device("meta"):
        model = cls(config)
    layout, own = published_layout(model), model.state_dict()
    used = [key for grid in layout.values() for row in grid for key in row]
    assert sorted(used) == sorted(own), "every tensor of ours stands in the layout once"
    shapes = {}
    for name, grid in layout.items():
        first = own[grid[0][0]]
        shape = list(first.shape)
        if shape:
            shape[0] = sum(own[row[0]].shape[0] for row in grid)
        if len(grid[0]) > 1:
            shape[1] = sum(own[key].shape[1] for key in grid[0])
        shapes[name] = shape
    shapes["encoder.image.pos_embed"], shapes["encoder.audio.pos_embed"] = [1, 196, 768], [1, 96, 768]
    assert shapes == expected


def test_missing_and_unknown_tensors_are_named():
    published = export_original_state_dict(make_model("encoder"))
    config = DeepAVFusionConfig(**TINY)
    broken = {name: tensor for name, tensor in published.items() if name != "audio.norm.bias"}
    broken["extra.weight"] = torch.zeros(2)
    with pytest.raises(ValueError, match=r"Missing \(1\): 'audio\.norm\.bias'.*Unknown \(1\): 'extra\.weight'"):
        load_original_checkpoint(broken, config=config)


def test_wrong_shapes_are_named():
    published = export_original_state_dict(make_model("encoder"))
    config = DeepAVFusionConfig(**{**TINY, "intermediate_size": 256})
    with pytest.raises(ValueError, match=r"mlp\.fc1\.weight is \(128, 64\), expected \(256, 64\)"):
        load_original_checkpoint(published, config=config)


def test_other_positions_are_refused():
    published = export_original_state_dict(make_model("encoder"))
    published["image.pos_embed"] = published["image.pos_embed"] + 0.1
    with pytest.raises(ValueError, match=r"image\.pos_embed .* is not the table"):
        load_original_checkpoint(published, config=DeepAVFusionConfig(**TINY))
    with pytest.raises(ValueError, match=r"sin-cos table of no 2-D grid"):
        load_original_checkpoint(published)


def test_tasks():
    published = export_original_state_dict(make_model("pretraining"))
    encoder = load_original_checkpoint(published, task="encoder")
    assert type(encoder) is DeepAVFusionModel
    assert torch.equal(encoder.fusion_tokens, published["encoder.fusion_tokens"])
    with pytest.raises(ValueError, match="holds a model for 'pretraining': expected one for 'separation'"):
        load_original_checkpoint(published, task="separation")
    with pytest.raises(ValueError, match="Unknown task 'singing'"):
        load_original_checkpoint(published, task="singing")


def test_what_a_file_does_not_tell():
    published = export_original_state_dict(make_model("encoder"))
    published["fusion_tokens"] = published["fusion_tokens"][:, :9]
    with pytest.raises(ValueError, match="9 fusion tokens divide into the three kinds"):
        load_original_checkpoint(published)
    del published["audio.pos_embed"]
    with pytest.raises(ValueError, match=r"'audio\.pos_embed', which tells the input's size"):
        load_original_checkpoint(published)


def test_files(tmp_path, capsys):
    model = make_model("pretraining")
    path = tmp_path / "checkpoint_latest.pth"
    torch.save({"state_dict": export_original_state_dict(model), "epoch": 3, "optimizer": {"lr": 0.1}}, path)
    again = load_original_checkpoint(path)
    assert torch.equal(again.image_decoder.mask_token, model.image_decoder.mask_token)

    assert convert.main([str(path), str(tmp_path / "out")]) == 0
    assert "DeepAVFusionForPreTraining" in capsys.readouterr().out
    reloaded = DeepAVFusionForPreTraining.from_pretrained(tmp_path / "out")
    assert torch.equal(reloaded.deepavfusion.fusion_tokens, model.deepavfusion.fusion_tokens)
    assert (tmp_path / "out" / "processor_config.json").exists()

    assert convert.main([str(tmp_path / "absent.pth"), str(tmp_path / "out")]) == 2
    assert "absent.pth" in capsys.readouterr().err


class NotPlain:
    """Stands for what a pickle may run."""


def test_pickles_with_code_are_refused(tmp_path):
    torch.save({"state_dict": NotPlain()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth cannot be read as a checkpoint of plain tensors"):
        load_original_checkpoint(tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="Expected a state dict of tensors"):
        load_original_checkpoint({"state_dict": {}, "epoch": 3})


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
        image=tmp_path / "mae.pth", audio=audio, config=DeepAVFusionConfig(**TINY)
    )
    attention = model.image.layers[1].attention
    fused = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    assert torch.equal(fused, image["model"]["blocks.1.attn.qkv.weight"])
    assert torch.equal(model.audio.patch_embed.projection.weight, audio["model"]["patch_embed.proj.weight"])
    assert torch.equal(model.audio.layers[0].mlp.fc2.bias, audio["model"]["blocks.0.mlp.fc2.bias"])


@pytest.mark.parametrize(("inflate", "gain"), [("repeat", 2.0), ("mean", 1.0)])
def test_inflation_to_video(inflate, gain):
    """A still video's patch gets the image's response, or twice that."""
    image = mae_file(3)
    model = DeepAVFusionModel(DeepAVFusionConfig(**{**TINY, "num_frames": 4}))
    load_unimodal(model, image=image, inflate=inflate)
    weight, expected = model.image.patch_embed.projection.weight, image["model"]["patch_embed.proj.weight"]
    torch.testing.assert_close(weight.sum(dim=2), gain * expected)
    with pytest.raises(ValueError, match="expected 'repeat' or 'mean'"):
        load_unimodal(model, image=image, inflate="tile")


@pytest.mark.parametrize("cls", [ViTMAEModel, ViTMAEForPreTraining])
def test_from_hub_folder(tmp_path, cls):
    values = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 128}
    values |= {"image_size": 32, "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1}
    source = cls(ViTMAEConfig(**values, decoder_num_attention_heads=1, decoder_intermediate_size=64))
    source.save_pretrained(tmp_path)
    model = DeepAVFusionForPreTraining(DeepAVFusionConfig(**TINY, **DECODER))
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
    model = DeepAVFusionModel(DeepAVFusionConfig(**TINY))
    with pytest.raises(ValueError, match="does not fit the image tower"):
        load_unimodal(model, image=mae_file(1))
    with pytest.raises(ValueError, match=r"audio tower.*Missing: layers\.1"):
        load_unimodal(model, audio=mae_file(1, layers=1))
    unknown = mae_file(3)
    unknown["model"]["blocks.0.gamma"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"unknown tensors blocks\.0\.gamma"):
        load_unimodal(model, image=unknown)
