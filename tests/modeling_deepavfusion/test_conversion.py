"""Published checkpoints, both ways."""

import argparse
import hashlib
import json
import re
import zlib

import pytest
import torch
from transformers import AutoProcessor

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
    conversion_deepavfusion,
    export_original_state_dict,
    load_original_checkpoint,
    published_deepavfusion,
)
from deepavfusion.card_deepavfusion import at_location
from deepavfusion.conversion_deepavfusion import TASK_CLASSES, UndeterminedError, infer_config
from deepavfusion.inference import convert
from deepavfusion.inference.publishing.contents import find_contents
from deepavfusion.patches_deepavfusion import sincos_positions
from deepavfusion.published_deepavfusion import checkpoint_name
from tests.golden_files import golden_path
from tests.hub_server import HubServer
from tests.isolated import run_python
from tests.media_factory import write_media
from tests.tiny import INFERABLE, INFERABLE_DECODER, tiny_config

WIDE = {**INFERABLE, "hidden_size": 128, "num_attention_heads": 2, "num_fusion_attention_heads": 2}
VARIANTS = {
    "encoder": (DeepAVFusionModel, INFERABLE),
    "dense": (DeepAVFusionModel, {**INFERABLE, "fusion_type": "dense", "fusion_attention_ratio": 0.5}),
    "token": (DeepAVFusionModel, {**INFERABLE, "fusion_type": "token", "fusion_layers": [1]}),
    "video": (DeepAVFusionModel, {**INFERABLE, "num_frames": 4}),
    "divided": (DeepAVFusionModel, {**INFERABLE, "num_frames": 4, "video_attention": "divided"}),
    "pretraining": (DeepAVFusionForPreTraining, {**INFERABLE, **INFERABLE_DECODER}),
    "swin": (
        DeepAVFusionForPreTraining,
        {
            **INFERABLE,
            **INFERABLE_DECODER,
            "image_size": 80,
            "image_decoder_type": "swin",
            "audio_decoder_type": "swin",
        },
    ),
    "classification": (DeepAVFusionForAudioVisualClassification, {**INFERABLE, "num_labels": 5}),
    "probe": (
        DeepAVFusionForAudioVisualClassification,
        {**INFERABLE, "num_labels": 5, "classifier_input_norm": True},
    ),
    "separation": (DeepAVFusionForSourceSeparation, INFERABLE),
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
    """At full base size, without memory: on meta tensors."""
    with torch.device("meta"):
        model = cls(DeepAVFusionConfig(**RELEASES[release], **overrides))
    exported = export_original_state_dict(model)
    assert {name: list(tensor.shape) for name, tensor in exported.items()} == published_shapes[f"{release}/{kind}"]


def released_tensors(shapes, fill):
    """Tensors of a release's names and shapes, with the position tables that all releases have."""
    tensors = {name: fill(name, shape) for name, shape in shapes.items()}
    tensors["encoder.image.pos_embed"] = sincos_positions((14, 14), 768)[None]
    tensors["encoder.audio.pos_embed"] = sincos_positions((8, 12), 768)[None]
    return tensors


@pytest.mark.parametrize(("release", "kind", "cls", "overrides"), RELEASED_MODELS, ids=lambda x: str(x)[:40])
def test_released_configurations_are_inferred(published_shapes, release, kind, cls, overrides):
    tensors = released_tensors(published_shapes[f"{release}/{kind}"], lambda _, shape: torch.tensor(0.0).expand(shape))
    task = next(task for task, made in TASK_CLASSES.items() if made is cls)
    inferred = infer_config(tensors, task)
    assert inferred.to_dict() == DeepAVFusionConfig(**RELEASES[release], **overrides).to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_released_pretrainings_at_full_size(published_shapes, release):
    """Random tensors of the released shapes: each is used, and exported unchanged."""

    def fill(name, shape):
        return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))

    tensors = released_tensors(published_shapes[f"{release}/pretraining"], fill)
    model = load_original_checkpoint({f"module.{name}": tensor for name, tensor in tensors.items()})
    assert type(model) is DeepAVFusionForPreTraining
    exported = export_original_state_dict(model)
    assert exported.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(exported[name], tensor), name


@pytest.mark.parametrize("variant", ["token", "divided", "swin", "probe"])
def test_any_missing_tensor_is_named(variant):
    """Any missing tensor, even those from which sizes or the task are inferred. Window tables are derived."""
    published = export_original_state_dict(make_model(variant))
    for name in published:
        if "relative_position_index" not in name and "attn_mask" not in name:
            rest = {key: tensor for key, tensor in published.items() if key != name}
            with pytest.raises(ValueError, match=re.escape(name.replace("video.", "image."))):
                load_original_checkpoint(rest)


def test_missing_and_unknown_tensors_are_named():
    published = export_original_state_dict(make_model("encoder"))
    config = DeepAVFusionConfig(**INFERABLE)
    broken = {name: tensor for name, tensor in published.items() if name != "audio.norm.bias"}
    broken["extra.weight"] = torch.zeros(2)
    with pytest.raises(ValueError, match=r"Missing \(1\): 'audio\.norm\.bias'.*Unknown \(1\): 'extra\.weight'"):
        load_original_checkpoint(broken, config=config)


def test_nothing_of_an_encoder_file_is_left_out():
    published = {f"encoder.{name}": tensor for name, tensor in export_original_state_dict(make_model("token")).items()}
    assert type(load_original_checkpoint(published)) is DeepAVFusionModel
    with pytest.raises(ValueError, match=r"Unknown \(1\): 'extra\.weight'"):
        load_original_checkpoint({**published, "extra.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'encoder\.fusion_norm\.bias' twice: 'module\.encoder\.fusion_norm\.bias'"):
        load_original_checkpoint({**published, "module.encoder.fusion_norm.bias": torch.zeros(64)})


def test_wrong_shapes_are_named():
    published = export_original_state_dict(make_model("encoder"))
    config = DeepAVFusionConfig(**{**INFERABLE, "intermediate_size": 256})
    with pytest.raises(ValueError, match=r"mlp\.fc1\.weight is \(128, 64\), expected \(256, 64\)"):
        load_original_checkpoint(published, config=config)


def test_other_positions_are_refused():
    published = export_original_state_dict(make_model("encoder"))
    published["image.pos_embed"] = published["image.pos_embed"] + 0.1
    with pytest.raises(ValueError, match=r"image\.pos_embed .* is not the table"):
        load_original_checkpoint(published, config=DeepAVFusionConfig(**INFERABLE))
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
    with pytest.raises(UndeterminedError, match=r"9 fusion tokens divide into .* is not in the file; pass `config`\.$"):
        load_original_checkpoint(published)
    del published["audio.pos_embed"]
    with pytest.raises(UndeterminedError, match=r"'audio\.pos_embed', from which the input's size is inferred"):
        load_original_checkpoint(published)


def test_assumed_heads_are_reported(monkeypatch):
    messages = []
    monkeypatch.setattr(conversion_deepavfusion.logger, "warning", messages.append)
    config = infer_config(export_original_state_dict(make_model("pretraining")), "pretraining")
    assert (config.num_attention_heads, config.decoder_num_attention_heads) == (1, 16)
    assert [re.search(r"\d+ attention heads for \w+=(\d+)", text)[1] for text in messages] == ["64", "64", "32"]

    with torch.device("meta"):
        huge = DeepAVFusionModel(DeepAVFusionConfig.from_size("huge", num_hidden_layers=2, spectrogram_length=64))
    tensors = export_original_state_dict(huge) | {
        "image.pos_embed": sincos_positions((16, 16), 1280)[None],
        "audio.pos_embed": sincos_positions((8, 4), 1280)[None],
    }
    assert infer_config(tensors, "encoder").to_dict() == huge.config.to_dict()


def test_ratios_survive_rounding():
    """61 / 896 * 896 is a little less than 61."""
    assert int(896 * (61 / 896)) == 60
    widths = [(dim, width) for dim in (64, 384, 768, 896, 1024, 1280) for width in range(1, 4 * dim)]
    assert all(int(dim * conversion_deepavfusion._ratio(width, dim)) == width for dim, width in widths)


def test_files(tmp_path, capsys):
    model = make_model("pretraining")
    path = tmp_path / "checkpoint_latest.pth"
    stored = {"state_dict": export_original_state_dict(model), "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save({**stored, "args": argparse.Namespace(lr=0.1)}, path)
    again = load_original_checkpoint(path)
    assert torch.equal(again.image_decoder.mask_token, model.image_decoder.mask_token)

    assert convert.main([str(path), str(tmp_path / "out")]) == 0
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir() if not file.name.startswith(".")}
    assert modes == {path.stat().st_mode & 0o777}  # safetensors makes its files private to the user
    printed = capsys.readouterr().out
    assert "DeepAVFusionForPreTraining with" in printed
    assert "2 layers of width 64 with 1 heads; factorized fusion in 2 layers, 16 + 8 + 8 tokens" in printed
    assert "32 x 48 pixels, 32 mel bins x 80 steps" in printed
    reloaded = DeepAVFusionForPreTraining.from_pretrained(tmp_path / "out")
    assert torch.equal(reloaded.deepavfusion.fusion_tokens, model.deepavfusion.fusion_tokens)
    assert (tmp_path / "out" / "processor_config.json").exists()

    assert convert.main([str(tmp_path / "absent.pth"), str(tmp_path / "out")]) == 2
    assert "absent.pth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variant", "crop_pct"), [("encoder", 0.875), ("classification", 0.875), ("segmentation", 1.0)]
)
def test_convert_saves_the_view_that_the_model_was_trained_with(variant, crop_pct, tmp_path):
    model = make_model(variant)
    torch.save(export_original_state_dict(model), tmp_path / "published.pth")
    model.config.save_pretrained(tmp_path / "config")
    arguments = [tmp_path / "published.pth", tmp_path / "out", "--config", tmp_path / "config"]
    assert convert.main([str(argument) for argument in arguments]) == 0
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.image_processor.crop_pct == crop_pct


@pytest.mark.parametrize("released", [True, False])
def test_the_card_of_a_released_checkpoint_has_what_is_published_of_it(tmp_path, released, monkeypatch):
    path = tmp_path / "checkpoint_latest.pth"
    torch.save(export_original_state_dict(make_model("encoder")), path)
    if released:
        content = path.read_bytes()
        known = (len(content), hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(published_deepavfusion._FILES, "deepavfusion_vitb_as2m_ep200", known)
    assert convert.main([str(path), str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert ("| VGGSound-Music | SDR | 6.93 dB | vggsound_music_separation |" in text) == released
    assert ("| VGGSound, fine-tuned | top-1 accuracy | 57.91 % | vggsound_finetune |" in text) == released
    assert ("After fine-tuning. Not measured with this package. Source: README of the auth" in text) == released
    assert ("| training data | AudioSet-2M, 200 epochs, by the published code |" in text) == released
    assert ("converted from checkpoint_latest.pth, in the format" in text) != released
    assert "No license is stated for the weights." in text


def converted_with_example(variant, tmp_path, clip):
    model = make_model(variant)
    torch.save(export_original_state_dict(model), tmp_path / "published.pth")
    model.config.save_pretrained(tmp_path / "config")
    arguments = [tmp_path / "published.pth", tmp_path / "out", "--config", tmp_path / "config", "--example", clip]
    code = convert.main([str(argument) for argument in arguments])
    card = tmp_path / "out" / "README.md"
    return code, card.read_text(encoding="utf-8") if card.is_file() else None


@pytest.mark.parametrize(
    ("variant", "files", "text"),
    [
        ("pretraining", {"frame.png", "spectrogram.png"}, r"with \d+ of \d+ patches visible: masked | reconstructed"),
        ("encoder", set(), "## Example"),
        ("classification", set(), r"Its label, and how probable it is: LABEL_\d \(0\.\d\d\)"),
        ("separation", {"separated.wav"}, "separated from its sound: <audio "),
        ("segmentation", {"mask.png"}, "What sounds in its middle frame"),
    ],
)
def test_the_card_plays_an_example_and_shows_what_the_model_makes_of_it(variant, files, text, tmp_path):
    write_media(tmp_path / "My Clip.MP4", seconds=1.5)
    code, card = converted_with_example(variant, tmp_path, tmp_path / "My Clip.MP4")
    assert code == 0
    folder = tmp_path / "out" / "example"
    assert {file.name for file in folder.iterdir()} == {"clip.mp4", *files}
    assert (folder / "clip.mp4").read_bytes() == (tmp_path / "My Clip.MP4").read_bytes()
    assert all(f'src="example/{name}"' in card for name in ("clip.mp4", *files))
    assert re.search(text, card)
    assert re.search(r"\| latency \| [\d.e+]+ ms for a forward pass, batch of 1, float32, cpu", card)
    contents = find_contents(tmp_path / "out")
    assert {f"example/{name}" for name in ("clip.mp4", *files)} <= set(contents.published)
    assert not contents.missing


def test_an_example_that_cannot_be_shown_leaves_nothing(tmp_path, capsys):
    write_media(tmp_path / "silent.mp4", seconds=0.5, audio_codec=None)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    write_media(tmp_path / "clip.avi", seconds=0.5)
    for name, text in (
        ("silent.mp4", "silent.mp4: expected images and audio around 0.25 s, but it has no audio"),
        ("broken.mp4", "broken.mp4"),
        ("clip.avi", "clip.avi: expected an MP4 or WebM file, which browsers play."),
        ("absent.mp4", "absent.mp4 cannot be used: there is no such file"),
    ):
        assert converted_with_example("encoder", tmp_path, tmp_path / name) == (2, None)
        assert text in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_released_checkpoints_are_known_by_their_content(tmp_path, monkeypatch):
    path = tmp_path / "deepavfusion_vitb_vggsound_ep200.pth"
    path.write_bytes(b"other weights")
    assert checkpoint_name(path) is None
    digest = hashlib.sha256(b"these weights").hexdigest()
    monkeypatch.setitem(published_deepavfusion._FILES, "deepavfusion_vitb_as2m_ep200", (13, digest))
    assert checkpoint_name(path) is None  # the same size
    path.write_bytes(b"these weights")
    assert checkpoint_name(path) == "deepavfusion_vitb_as2m_ep200"


def test_convert_publishes(tmp_path):
    model = make_model("encoder")
    torch.save(export_original_state_dict(model), tmp_path / "encoder.pth")
    source = "import sys\nfrom deepavfusion.inference import convert\nsys.exit(convert.main(sys.argv[1:]))"
    arguments = [tmp_path / "encoder.pth", tmp_path / "out", "--push-to-hub", "tester/converted", "--license", "mit"]
    with HubServer() as hub:
        printed = run_python(source, *arguments, home=tmp_path / "home", endpoint=hub.endpoint)
        files = hub.repositories["tester/converted"].files
    assert "published at" in printed
    for name in ("model.safetensors", "config.json", "processor_config.json"):
        assert files[name].content == (tmp_path / "out" / name).read_bytes()
    assert {"modeling_deepavfusion.py", "processing_deepavfusion.py"} <= set(files)
    published, written = files["README.md"].content.decode(), (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "converted from encoder.pth, in the format" in published
    assert "license: mit\n" in published
    assert "Weights: mit." in published
    assert published == at_location(written, "tester/converted") != written
    assert "checked: card, results, code" in printed


class NotPlain:
    """Stands for the code that a pickle may run."""


def test_pickles_with_code_are_refused(tmp_path):
    torch.save({"state_dict": NotPlain()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth cannot be read as a checkpoint of plain tensors"):
        load_original_checkpoint(tmp_path / "bad.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"bad\.safetensors cannot be read as a checkpoint of plain tensors"):
        load_original_checkpoint(tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="Expected a state dict of tensors"):
        load_original_checkpoint({"state_dict": {}, "epoch": 3})


@pytest.mark.parametrize(
    ("cls", "setting"),
    [
        (DeepAVFusionForSourceSeparation, {"separation_condition": "fusion"}),
        (DeepAVFusionForSourceSeparation, {"separation_scales": 1}),
        (DeepAVFusionForSourceSeparation, {"unet_norm": "group"}),
        (DeepAVFusionForSemanticSegmentation, {"unet_norm": "group"}),
        (DeepAVFusionForSemanticSegmentation, {"segmentation_width": 64}),
    ],
)
def test_heads_with_other_settings_than_the_published_ones_are_not_exported(cls, setting):
    model = cls(DeepAVFusionConfig(**{**WIDE, **setting}))
    (name,) = setting
    with pytest.raises(TypeError, match=rf"{name} is .*, which has no published form: expected .* model\.deepavfusion"):
        export_original_state_dict(model)
    export_original_state_dict(model.deepavfusion)
    export_original_state_dict(cls(DeepAVFusionConfig(**WIDE)))


def test_localization_was_never_published():
    """The head has no published names; its encoder has, and a published encoder starts a new head."""
    model = DeepAVFusionForSoundLocalization(tiny_config())
    with pytest.raises(TypeError, match=r"has no published form: .*ForSourceSeparation.* model\.deepavfusion"):
        export_original_state_dict(model)
    again = load_original_checkpoint(export_original_state_dict(model.deepavfusion), config=model.config)
    assert type(again) is DeepAVFusionModel
    for name, value in model.deepavfusion.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
