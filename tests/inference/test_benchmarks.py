"""Forms of public benchmarks, without their packages; with them: tests/ecosystem."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset, Features, Image, Video

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionForAudioVisualClassification, DeepAVFusionModel, DeepAVFusionProcessor
from deepavfusion.inference import export
from deepavfusion.inference.benchmarks import vggsounder
from deepavfusion.inference.benchmarks.mteb import MTEBEncoder
from deepavfusion.inference.benchmarks.names import match_names
from deepavfusion.inference.common import load_pipeline
from tests.media_factory import write_kinds
from tests.modeling_deepavfusion.cases import save_model

# VGGSounder's order is not that of the model.
NAMES = ["dog barking", "air horn", "child speech, kid speaking", "zebra braying"]
FIRST, SECOND, THIRD = "--U7joUcTCo_000000", "abcdefghijk_000012", "lmnopqrstuv_000003"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    labels = {0: "air horn", 1: "child speech  kid speaking", 2: "Dog_barking", 3: "other", 4: "zebra braying"}
    save_model(folder, DeepAVFusionForAudioVisualClassification, id2label=labels, num_labels=5)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_kinds(folder, seconds=4.0, sound_seconds=4.0, silent_seconds=1.0, rate=22050, picture="photo.png")
    (folder / "videos").mkdir()
    (folder / "clip.mov").rename(folder / "videos" / f"{FIRST}_000010.mp4")
    (folder / "silent.mp4").rename(folder / "videos" / f"{SECOND}.mp4")
    return folder / "videos"


@pytest.fixture
def classes(tmp_path):
    file = tmp_path / "classes.csv"
    file.write_text("index,mid,display_name\n" + "".join(f'{i},vgg_{i},"{name}"\n' for i, name in enumerate(NAMES)))
    return file


def test_predictions_per_modality_for_vggsounder(classifier, clips, classes, tmp_path, capsys):
    out = tmp_path / "new" / "predictions.pkl"
    words = ["export", "vggsounder", str(classifier), str(clips), "--output", str(out), "--classes", str(classes)]
    assert cli.main([*words, "--device", "cpu"]) == 0
    assert f"logits of 2 clips written to {out}" in capsys.readouterr().out
    found = pickle.loads(out.read_bytes())
    assert set(found) == {FIRST, SECOND}
    model = DeepAVFusionForAudioVisualClassification.from_pretrained(classifier).eval()
    inputs = DeepAVFusionProcessor.from_pretrained(classifier)(videos=str(clips / f"{FIRST}_000010.mp4"))
    order = [2, 0, 1, 4]
    with torch.no_grad():
        expected = {
            "a": model(input_features=inputs.input_features),
            "v": model(pixel_values=inputs.pixel_values),
            "av": model(**inputs),
        }
    for name, outputs in expected.items():
        assert found[FIRST]["logits"][name] == pytest.approx(outputs.logits[0, order].tolist(), abs=1e-5)
    silent = found[SECOND]["logits"]
    assert silent["a"] is None
    assert silent["av"] == silent["v"]
    assert cli.main(words) == 2
    assert "already exists" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite", "--num-clips", "3"]) == 0
    several = pickle.loads(out.read_bytes())[FIRST]["logits"]["av"]
    pipe = load_pipeline("audio-visual-classification", str(classifier), "cpu")
    windows = pipe.processor(videos=str(clips / f"{FIRST}_000010.mp4"), num_clips=3)
    with torch.no_grad():
        assert several == pytest.approx(model(**windows).logits.mean(0)[order].tolist(), abs=1e-5)


def test_predictions_are_scored_with_labels(classifier, clips, classes, tmp_path, capsys):
    out, labels = tmp_path / "predictions.pkl", tmp_path / "labels.csv"
    labels.write_text(f"video_id,label,modality\n{FIRST},air horn,AV\n{FIRST},dog barking,A\nother,air horn,V\n")
    words = ["export", "vggsounder", str(classifier), str(clips), "--output", str(out), "--classes", str(classes)]
    words += ["--device", "cpu", "--labels", str(labels)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert f"scores written to {out.with_suffix('.json')}; 1 clips have no labels" in printed
    assert "v only: 0 clips\n" in printed
    found = json.loads(out.with_suffix(".json").read_text())
    stored = pickle.loads(out.read_bytes())[FIRST]["logits"]
    assert found["av"]["hit_rate@1"] == float(np.argmax(stored["av"]) == 1)
    assert found["a"]["hit_rate@1"] == float(np.argmax(stored["a"]) in (0, 1))
    assert found["mu"]["clips"] == 1
    out.unlink()
    assert cli.main(words) == 2
    assert "already exists" in capsys.readouterr().err


def test_what_cannot_be_exported_is_named(classifier, clips, classes, tmp_path, capsys, monkeypatch):
    out = tmp_path / "predictions.pkl"
    start = ["export", "vggsounder", str(classifier)]
    rest = ["--output", str(out), "--device", "cpu"]

    def told(*words):
        assert cli.main([*start, *map(str, words), *rest]) == 2
        return capsys.readouterr().err

    again = tmp_path / f"{SECOND}_000022.mp4"
    again.write_bytes((clips / f"{SECOND}.mp4").read_bytes())
    message = told(clips, again, "--classes", classes)
    assert f"expected one clip of video {SECOND}, but {clips / f'{SECOND}.mp4'} is another" in message
    out.unlink()
    with classes.open("a") as file:
        file.write('4,vgg_4,"whale calling"\n')
    lacking = told(clips, "--classes", classes)
    assert "the 5 classes of VGGSounder, got one that lacks 1 of them: whale calling." in lacking
    classes.write_text("index,name\n0,a\n")
    assert "expected the classes of VGGSounder in a column display_name" in told(clips, "--classes", classes)
    assert "absent.csv" in told(clips, "--classes", tmp_path / "absent.csv")
    monkeypatch.setattr(vggsounder.importlib.util, "find_spec", lambda name: None)
    assert "pip install vggsounder, or give --classes" in told(clips)
    assert not out.exists()


def test_formats_have_modules_and_parsers(capsys):
    for name in export.FORMATS:
        with pytest.raises(SystemExit) as ended:
            export.main([name, "--help"])
        assert ended.value.code == 0
        assert f"deepavfusion export {name}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        export.main(["unknown"])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert all(name in printed for name in export.FORMATS)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("clips/abcdefghijk_000012_000022.mp4", "abcdefghijk_000012"),
        ("abc_efg-ijk_000012.mp4", "abc_efg-ijk_000012"),
        ("--U7joUcTCo_000000.webm", "--U7joUcTCo_000000"),
        ("my clip.mp4", "my clip"),
    ],
)
def test_ids_of_videos_are_in_the_names_of_clips(file, name):
    assert vggsounder.video_id(file) == name


def test_names_match_where_that_leaves_no_choice():
    assert match_names(["dog_barking", "cat"], ["Cat", "cat", "Dog barking"]) == {"cat": 1, "dog_barking": 2}
    assert match_names(["a b"], ["a_b", "A b"]) == {}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    save_model(folder, DeepAVFusionModel)
    return MTEBEncoder(str(folder), device="cpu")


def loader(data, size=2):
    return SimpleNamespace(dataset=data, batch_size=size)


def test_rows_of_a_data_set_are_encoded_together(encoder, clips):
    """As mteb gives them: columns that `datasets` would decode by torchcodec, which is not needed."""
    clip = str(clips / f"{FIRST}_000010.mp4")
    data = Dataset.from_dict({"video": [clip] * 3, "audio": [clip, None, clip], "label": [0, 1, 0]})
    data = data.cast_column("video", Video()).cast_column("audio", Audio())
    vectors = encoder.encode(loader(data), show_progress_bar=False, task_metadata=None, hf_split="test")
    assert vectors.shape == (3, encoder.embedder.get_embedding_dimension())
    embedder = encoder.embedder
    with torch.no_grad():
        both, alone = (embedder(embedder.preprocess([x]))["sentence_embedding"] for x in (clip, {"video": clip}))
    assert torch.allclose(vectors[[0, 2]], both, atol=1e-5)
    assert torch.allclose(vectors[1], alone[0], atol=1e-5)
    images = Dataset.from_dict(
        {"image": [{"path": None, "bytes": (clips.parent / "photo.png").read_bytes()}]}, Features({"image": Image()})
    )
    assert encoder.encode(loader(images), batch_size=1, show_progress_bar=False).shape == vectors[:1].shape
    similarity = encoder.similarity(vectors.numpy(), vectors)
    assert torch.allclose(similarity.diag(), encoder.similarity_pairwise(vectors, vectors.numpy()))
    assert torch.allclose(similarity.diag(), torch.ones(3))
    assert encoder.similarity(vectors[0], vectors).shape == (1, 3)


def test_other_data_sets_are_refused(encoder):
    with pytest.raises(ValueError, match="any of image, audio, video, got .'text'"):
        encoder.encode(loader(Dataset.from_dict({"text": ["a"]})))
    empty = Dataset.from_dict({"image": [None]}, Features({"image": Image()}))
    with pytest.raises(ValueError, match="in every row, got none in one"):
        encoder.encode(loader(empty), show_progress_bar=False)


def test_pooling_is_that_of_the_saved_encoder(encoder, tmp_path):
    assert encoder.embedder.pooling == "own"
    assert encoder.name.endswith("/tiny")
    save_model(tmp_path, DeepAVFusionModel, pretraining_objective="jepa")
    assert MTEBEncoder(str(tmp_path), device="cpu").embedder.pooling == "fusion"
    settings = tmp_path / "sentence_bert_config.json"
    settings.write_text(settings.read_text().replace('"fusion"', '"own"'))
    assert MTEBEncoder(str(tmp_path), device="cpu").embedder.pooling == "own"
    named = MTEBEncoder(str(tmp_path), pooling="fusion", name="a/b")
    assert (named.name, named.embedder.pooling) == ("a/b", "fusion")
    assert torch.accelerator.is_available() or named.device.type == "cpu"
    with pytest.raises(ValueError, match="not available"):
        MTEBEncoder(str(tmp_path), device="nowhere")
    assert torch.isfinite(encoder.similarity(np.zeros((1, 2)), np.ones((1, 2)))).all()
