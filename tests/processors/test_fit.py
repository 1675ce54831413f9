"""Ways to fit wide and upright images: what the model sees, and where its maps lie on the whole image."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.testing import assert_close
from transformers import AutoImageProcessor, AutoProcessor

from deepavfusion import (
    DeepAVFusionFeatureExtractor,
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionImageProcessor,
    DeepAVFusionModel,
    DeepAVFusionProcessor,
    DeepAVFusionVideoProcessor,
)
from deepavfusion.inference import classify, embed, localize, segment
from deepavfusion.processors.fit_deepavfusion import FITS, fit_regions, place_maps, without_margins
from deepavfusion.processors.pipelines_deepavfusion import pipelines
from tests.media_factory import tone, write_media
from tests.modeling_deepavfusion.cases import make_model

WHOLE = ("pad", "squash", "tiles")
SHAPES = [(90, 160), (160, 90), (64, 64), (65, 64), (64, 200), (300, 64), (7, 5), (48, 500)]
INPUT = (32, 48)
each_fit = pytest.mark.parametrize("fit", FITS)


def ramps(height: int, width: int) -> torch.Tensor:
    """(3, height, width) float32: the row, the column, and a constant, in fractions of the image."""
    rows = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    columns = ((torch.arange(width) + 0.5) / width).expand(height, width)
    return torch.stack([rows, columns, torch.full((height, width), 0.5)])


@each_fit
@pytest.mark.parametrize("shape", SHAPES)
def test_maps_come_back_to_where_they_were(fit, shape):
    """What the model sees of coordinates, placed on the image as a map, is the coordinates."""
    processor = DeepAVFusionImageProcessor(size=list(INPUT), crop_pct=1.0, fit=fit)
    views = processor.views(ramps(*shape))
    assert views.shape[1:] == (3, *INPUT)
    regions = processor.regions(*shape)
    assert len(views) == len(regions)
    placed = place_maps(processor.denormalize(views), regions, shape, float("nan"))
    seen = ~placed[0].isnan()
    # Beside margins, positions are those of the nearest one on the image; short sides are enlarged.
    tolerance = 1.5 / min(*INPUT, *shape) if fit != "pad" else 0.1
    assert (placed - ramps(*shape))[:, seen].abs().quantile(0.98) < tolerance
    if fit in WHOLE:
        assert seen.all()
        assert processor.crop_box(*shape) == (0, 0, *shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_are_few_and_overlap(shape):
    regions = fit_regions(*shape, INPUT, 0.875, "tiles")
    covered = np.zeros(shape, int)
    for top, left, bottom, right in (region.box for region in regions):
        assert top >= 0
        assert left >= 0
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    ratio = max(shape[0] / INPUT[0], shape[1] / INPUT[1]) / min(shape[0] / INPUT[0], shape[1] / INPUT[1])
    assert len(regions) <= np.ceil(ratio) + 1


def test_tiles_are_cross_faded():
    regions = fit_regions(32, 80, (32, 48), 1.0, "tiles")
    assert [region.box for region in regions] == [(0, 0, 32, 48), (0, 32, 32, 80)]
    maps = torch.stack([torch.zeros(1, 4, 6), torch.ones(1, 4, 6)])
    row = place_maps(maps, regions, (32, 80), -1.0)[0, 5]
    assert not row[:32].any()
    assert row[48:].eq(1).all()
    assert (row[33:48] > row[32:47]).all()
    assert row[39:41].mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("shape", "size"), [((33, 57), (8, 8)), ((20, 20), (40, 40)), ((5, 64), (7, 3))])
def test_maps_are_resized_as_by_interpolate(shape, size):
    regions = fit_regions(*shape, (16, 16), 1.0, "squash")
    maps = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(maps, shape, mode="bilinear", align_corners=False)[0]
    assert_close(place_maps(maps, regions, shape, 0.0), expected)
    parts = [place_maps(maps, regions, shape, 0.0, slice(i, min(i + 4, shape[0]))) for i in range(0, shape[0], 4)]
    assert_close(torch.cat(parts, dim=1), expected)


@each_fit
@pytest.mark.parametrize("shape", [(1, 50_000), (50_000, 1), (3, 20_000)])
def test_lines_of_pixels_stay_small(fit, shape):
    """The image that covers an input would have billions of pixels."""
    processor = DeepAVFusionImageProcessor(size=32, fit=fit)
    views = processor.views(torch.zeros(3, *shape, dtype=torch.uint8))
    assert views.shape[1:] == (3, 32, 32)
    assert len(views) <= 32
    assert torch.isfinite(views).all()


def test_margins_have_the_mean_color():
    views = DeepAVFusionImageProcessor(size=32, fit="pad").views(torch.full((3, 16, 64), 255, dtype=torch.uint8))
    assert not views[0, :, :12].any()
    assert not views[0, :, 20:].any()
    assert views[0, :, 13:19].ne(0).all()


def on_image(region, axis: int, count: int) -> list[bool]:
    """Which cells of a map have their center on the image, computed one by one."""
    centers = [Fraction(2 * i + 1, 2 * count) * region.size[axis] + region.offset[axis] for i in range(count)]
    return [0 <= center <= region.resized[axis] for center in centers]


@pytest.mark.parametrize("options", [*({"fit": fit} for fit in FITS), {"do_resize": False}])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 500), (500, 1), (20, 30)])
@pytest.mark.parametrize("resolution", [(4, 6), (1, 1), (3, 5), INPUT])
def test_cells_with_their_center_on_the_image(options, shape, resolution):
    regions = DeepAVFusionImageProcessor(size=list(INPUT), **options).regions(*shape)
    maps = torch.arange(1.0, 1 + np.prod(resolution)).reshape(1, *resolution).expand(len(regions), -1, -1)
    for found, values, region in zip(without_margins(maps, regions), maps, regions, strict=True):
        inside = [torch.tensor(on_image(region, axis, count)) for axis, count in enumerate(resolution)]
        if all(part.any() for part in inside):
            assert torch.equal(found, values[inside[0]][:, inside[1]])
        else:  # an image thinner than a cell
            assert found.numel() > 0
            assert 1 in found.shape
        if options.get("fit") in ("crop", "squash", "tiles"):
            assert torch.equal(found, values)


@pytest.mark.parametrize("shape", [(1, 500), (500, 1)])
def test_images_thinner_than_a_cell_have_the_one_in_their_middle(shape):
    [region] = fit_regions(*shape, (32, 32), 1.0, "pad")
    [found] = without_margins(torch.arange(16.0).view(1, 4, 4), [region])
    assert found.flatten().tolist() == ([4, 5, 6, 7] if shape[0] == 1 else [1, 5, 9, 13])
    placed = place_maps(torch.arange(16.0).view(1, 1, 4, 4), [region], shape, -1.0)
    assert placed[0, 0, 0] == found.flatten()[0]
    assert placed[0, -1, -1] == found.flatten()[-1]


@pytest.mark.parametrize("shape", SHAPES[1:])  # the margins of the first are thinner than half a cell
@pytest.mark.parametrize("resolution", [(4, 6), (3, 5), INPUT])
def test_margins_decide_nothing(shape, resolution):
    """Neither by interpolation at the edges of the image, nor as minimum or maximum."""
    processor = DeepAVFusionProcessor.from_model(make_model(DeepAVFusionModel))
    processor.image_processor = DeepAVFusionImageProcessor(size=list(INPUT), fit="pad")
    [region] = processor.visual_processor.regions(*shape)
    rows, columns = (region.cells(axis, count) for axis, count in enumerate(resolution))
    logits = torch.rand(1, 2, *resolution, generator=torch.Generator().manual_seed(0))
    expected = processor.post_process_semantic_segmentation({"logits": logits}, [shape])[0]
    heat = processor.post_process_sound_localization({"logits": logits[:, 0]}, [shape])[0]
    raw = processor.post_process_sound_localization({"logits": logits[:, 0]}, [shape], normalize=False)[0]
    seen = logits[0, 0, rows, columns]
    assert_close(heat, (raw - seen.min()) / (seen.max() - seen.min()).clamp(min=1e-30))
    margins = torch.ones(resolution, dtype=torch.bool)
    margins[rows, columns] = False
    assert margins.any()
    for value in (-1e4, 1e4):
        changed = logits.clone()
        changed[0, 0, margins] = value
        assert torch.equal(processor.post_process_semantic_segmentation({"logits": changed}, [shape])[0], expected)
        assert torch.equal(processor.post_process_sound_localization({"logits": changed[:, 0]}, [shape])[0], heat)


def test_heat_maps_of_padded_images_reach_from_0_to_1():
    """Of the two rows of cells that meet in the middle of the image, each has its center on the image's edge."""
    processor = DeepAVFusionProcessor(DeepAVFusionFeatureExtractor(), DeepAVFusionImageProcessor(size=32, fit="pad"))
    logits = torch.zeros(1, 4, 4)
    logits[0, 0, 0], logits[0, 2, 2], logits[0, 1, 1] = 10.0, 1.0, 0.5
    [heat] = processor.post_process_sound_localization({"logits": logits}, [(20, 80)])
    assert heat.min() == 0
    assert heat.max() == pytest.approx(1, abs=0.06)
    row, column = divmod(heat.argmax().item(), 80)
    assert row == 19
    assert abs(column - 2.5 * 20) <= 1


@pytest.mark.parametrize("processor_class", [DeepAVFusionImageProcessor, DeepAVFusionVideoProcessor])
def test_fit_is_crop_by_default_and_saved(tmp_path, processor_class):
    assert processor_class().fit == processor_class(fit="crop").fit == "crop"
    processor_class(size=32, fit="tiles").save_pretrained(tmp_path)
    assert processor_class.from_pretrained(tmp_path).fit == "tiles"
    for wrong in ("tile", None, 3, ["crop"]):
        with pytest.raises(ValueError, match="Expected fit as one of crop, pad, squash, tiles"):
            processor_class(fit=wrong)
        with pytest.raises(ValueError, match="Expected fit"):
            processor_class().with_fit(wrong)


def test_image_processors_load_by_auto_class(tmp_path):
    DeepAVFusionImageProcessor(size=32, fit="pad").save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path, trust_remote_code=False).fit == "pad"


def test_processors_save_and_override_fit(tmp_path):
    processor = DeepAVFusionProcessor.from_model(make_model(DeepAVFusionModel))
    processor.save_pretrained(tmp_path / "old")
    assert AutoProcessor.from_pretrained(tmp_path / "old").visual_processor.fit == "crop"
    loaded = DeepAVFusionProcessor.from_pretrained(tmp_path / "old", fit="tiles")
    assert loaded.visual_processor.fit == "tiles"
    loaded.save_pretrained(tmp_path / "new")
    assert AutoProcessor.from_pretrained(tmp_path / "new").visual_processor.fit == "tiles"
    assert processor.with_fit(None) is processor
    assert processor.with_fit("pad").visual_processor.fit == "pad"
    assert processor.visual_processor.fit == "crop"


def test_settings_from_before_fit_are_crops():
    processor = DeepAVFusionProcessor.from_model(make_model(DeepAVFusionModel))
    settings = processor.to_dict()
    settings["image_processor"].pop("fit")
    parts = DeepAVFusionProcessor._get_arguments_from_pretrained("folder", settings)
    assert parts[1].fit == "crop"
    assert DeepAVFusionProcessor._get_arguments_from_pretrained("folder", settings, fit="pad")[1].fit == "pad"


def test_tiles_are_rows_of_a_batch():
    """A wide image, none, and an upright one, with audio for each."""
    processor = DeepAVFusionProcessor.from_model(make_model(DeepAVFusionModel)).with_fit("tiles")
    images = [np.zeros((90, 160, 3), np.uint8), None, np.full((160, 90, 3), 9, np.uint8)]
    audio = [tone(16000, 1.0, frequency)[0] for frequency in (200, 400, 800)]
    inputs = processor(images=images, audio=audio, sampling_rate=16000)
    counts = [len(processor.visual_processor.regions(*shape)) for shape in ((90, 160), (160, 90))]
    rows = [0] * counts[0] + [1] + [2] * counts[1]
    assert min(counts) > 1
    assert inputs.image_present.tolist() == [row != 1 for row in rows]
    expected = processor.feature_extractor(audio, sampling_rate=16000).input_features
    assert torch.equal(inputs.input_features, expected[rows])
    with pytest.raises(ValueError, match="use another fit"):
        processor.visual_processor.transform(torch.zeros(3, 90, 160))


def test_tiles_of_several_images_are_merged():
    processor = DeepAVFusionProcessor.from_model(make_model(DeepAVFusionModel)).with_fit("tiles")
    sizes = [(90, 160), (160, 90), (64, 64)]
    counts = [len(processor.visual_processor.regions(*size)) for size in sizes]
    logits = torch.randn(sum(counts), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = processor.post_process_semantic_segmentation({"logits": logits}, sizes)
    assert [tuple(mask.shape) for mask in masks] == sizes
    assert all(mask.max() <= 2 for mask in masks)
    maps = processor.post_process_sound_localization({"logits": logits[:, 0]}, sizes)
    assert all((heat.amin() >= 0) & (heat.amax() <= 1) for heat in maps)
    with pytest.raises(ValueError, match=f"Expected logits of {sum(counts)} tiles"):
        processor.post_process_semantic_segmentation({"logits": logits[1:]}, sizes)
    labels = processor.post_process_classification({"logits": logits[:, :, 0, 0]}, 1, num_tiles=counts)
    means = [rows.mean(0).argmax().item() for rows in logits[:, :, 0, 0].split(counts)]
    assert [found[0]["label"] for found in labels] == means
    with pytest.raises(ValueError, match="num_tiles"):
        processor.post_process_classification({"logits": logits[:, :, 0, 0]}, num_tiles=[1])


MODELS = {
    "audio-visual-classification": (DeepAVFusionForAudioVisualClassification, {"num_labels": 4}),
    "audio-visual-source-separation": (DeepAVFusionForSourceSeparation, {}),
    "audio-visual-segmentation": (DeepAVFusionForSemanticSegmentation, {"num_labels": 3, "hidden_size": 128}),
    "sound-source-localization": (DeepAVFusionForSoundLocalization, {}),
    "audio-visual-feature-extraction": (DeepAVFusionModel, {}),
}


@pytest.fixture(scope="module")
def pipes():
    made = {}
    for seed, (task, (model_class, overrides)) in enumerate(MODELS.items()):
        model = make_model(model_class, seed=seed, **overrides)
        made[task] = pipelines()[task](model, DeepAVFusionProcessor.from_model(model), task=task, device="cpu")
    return made


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    def paint(time):
        return (ramps(48, 112).permute(1, 2, 0).numpy() * 255).astype(np.uint8)

    path = tmp_path_factory.mktemp("fit") / "wide.mp4"
    return str(write_media(path, size=(112, 48), paint=paint, seconds=1.0, fps=4))


@each_fit
def test_pipelines_show_the_whole_frame(pipes, wide, fit):
    mask = pipes["audio-visual-segmentation"](wide, fit=fit)["mask"]
    heat = pipes["sound-source-localization"](wide, fit=fit)["heat_map"]
    assert mask.shape == heat.shape == (48, 112)
    assert (mask == 255).any() == (fit == "crop")
    columns = np.flatnonzero(heat.any(0))
    assert columns[0] == 0 if fit != "crop" else columns[0] > 0
    assert columns[-1] == 111 if fit != "crop" else columns[-1] < 111


@pytest.mark.parametrize("batch_size", [1, 3])
def test_tiles_of_several_windows_are_merged_by_window(pipes, wide, batch_size):
    pipe = pipes["audio-visual-segmentation"]
    found = pipe(wide, fit="tiles", timestamps=[0.2, 0.6], batch_size=batch_size)
    single = [pipe(wide, fit="tiles", timestamps=[time])[0] for time in (0.2, 0.6)]
    for one, other in zip(found, single, strict=True):
        assert (one["mask"] != other["mask"]).mean() < 0.002
        assert one["timestamp"] == other["timestamp"]


def test_tiles_give_as_many_results_as_crops(pipes, wide):
    for task, pipe in pipes.items():
        crop, tiles = (pipe([wide, wide], fit=fit) for fit in ("crop", "tiles"))
        assert len(crop) == len(tiles) == 2
        if task == "audio-visual-source-separation":
            assert tiles[0]["audio"].shape == crop[0]["audio"].shape
        if task == "audio-visual-classification":
            assert sum(entry["score"] for entry in tiles[0]) == pytest.approx(1)
        if task == "audio-visual-feature-extraction":
            assert {name: value.shape for name, value in tiles[0].items()} == {
                name: value.shape for name, value in crop[0].items()
            }


def test_image_tokens_of_tiles_follow_each_other(pipes, wide):
    pipe = pipes["audio-visual-feature-extraction"]
    crop, tiles = (pipe(wide, tokens=True, fit=fit) for fit in ("crop", "tiles"))
    count = len(pipe.processor.with_fit("tiles").visual_processor.regions(48, 112))
    assert tiles["image"].shape[0] == count * crop["image"].shape[0]
    assert tiles["audio"].shape == crop["audio"].shape


def constant_logits(logits, inputs):
    return {"logits": logits.expand(len(inputs["pixel_values"]), *logits.shape)}


@each_fit
def test_sounds_on_margins_are_no_sources(pipes, wide, fit, monkeypatch):
    pipe = pipes["sound-source-localization"]
    [region, *_] = pipe.processor.with_fit(fit).visual_processor.regions(48, 112)
    grid = pipe.model.config.image_grid
    for fires_on_image in (False, True):
        logits = torch.full(grid, -8.0 if fires_on_image else 8.0)
        rows, columns = (region.cells(axis, count) for axis, count in enumerate(grid))
        logits[rows, columns] = 8.0 if fires_on_image else -8.0
        monkeypatch.setattr(pipe, "run_model", partial(constant_logits, logits))
        found, raw = pipe(wide, fit=fit), pipe(wide, fit=fit, normalize=False)["heat_map"]
        assert found["score"] == pytest.approx(1 / (1 + np.exp(-8.0 if fires_on_image else 8.0)))
        assert not found["heat_map"].any()  # the frame's map is constant
        assert np.unique(raw).tolist() == [8.0 if fires_on_image else -8.0]
        seen = found["mask"] if fires_on_image else ~found["mask"]
        assert seen.all() or (fit == "crop" and seen.any())


def test_saved_fit_is_that_of_pipelines(wide):
    model = make_model(DeepAVFusionForSemanticSegmentation, num_labels=3, hidden_size=128)
    processor = DeepAVFusionProcessor.from_model(model).with_fit("squash")
    pipe = pipelines()["audio-visual-segmentation"](model, processor, task="audio-visual-segmentation", device="cpu")
    assert not (pipe(wide)["mask"] == 255).any()
    assert (pipe(wide, fit="crop")["mask"] == 255).any()
    with pytest.raises(ValueError, match="Expected fit"):
        pipe(wide, fit="zoom")


def test_commands_take_fit(tmp_path, pipes, wide, capsys):
    for task in ("audio-visual-segmentation", "sound-source-localization", "audio-visual-classification"):
        pipes[task].save_pretrained(tmp_path / task)
    out = str(tmp_path / "out")
    options = ["--fit", "tiles", "--device", "cpu", "--out", out]
    assert segment.main([wide, "--model", str(tmp_path / "audio-visual-segmentation"), *options]) == 0
    [mask] = (tmp_path / "out").glob("*_mask.png")
    with Image.open(mask) as image:
        assert np.asarray(image).max() <= 2
    assert localize.main([wide, "--model", str(tmp_path / "sound-source-localization"), *options]) == 0
    model = str(tmp_path / "audio-visual-classification")
    assert embed.main([wide, "--model", model, *options]) == 0
    assert classify.main([wide, "--model", model, *options[:4]]) == 0
    with pytest.raises(SystemExit):
        classify.main([wide, "--model", model, "--fit", "zoom"])
    assert "invalid choice: 'zoom'" in capsys.readouterr().err
