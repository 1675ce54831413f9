"""Image files that FFmpeg would read as something else: HEIF photos, and animations."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, features

from deepavfusion import DeepAVFusionConfig, DeepAVFusionProcessor
from deepavfusion.processors import probe_clip, stills_deepavfusion
from deepavfusion.processors.media_deepavfusion import MediaError, load_clip, load_clips
from deepavfusion.processors.recordings_deepavfusion import FrameReader
from deepavfusion.training.data.views import read_image
from tests.media_factory import gray_at, media_bytes, write_media

BRANDS = ("heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "mif2", "msf1", "avci", "vvic")
PHOTO = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow does not decode AVIF")


def encoded(image_format: str, levels=None, **options) -> bytes:
    """`PHOTO`, or an animation of gray frames of some levels."""
    images = [Image.fromarray(PHOTO)]
    if levels is not None:
        images = [Image.new("RGB", (64, 48), (level,) * 3) for level in levels]
        options |= {"save_all": True, "append_images": images[1:]}
    file = io.BytesIO()
    images[0].save(file, image_format, **options)
    return file.getvalue()


def heif(brand: str, payload: bytes) -> bytes:
    """A file that starts like HEIF, whose content is another one."""
    return (20).to_bytes(4, "big") + b"ftyp" + brand.encode() + bytes(4) + b"miaf" + payload


@pytest.fixture
def opener(monkeypatch):
    """Registers what opens the files that `heif` makes, as pillow-heif does."""

    def open_heif(file, name):
        if file.read()[20:24] == b"none":
            raise SyntaxError("not a HEIF file")
        file.seek(20)
        image = Image.open(io.BytesIO(file.read()))
        image.format = "HEIF"
        return image

    monkeypatch.setitem(Image.OPEN, "HEIF", (open_heif, lambda start: start[4:8] == b"ftyp"))
    monkeypatch.setattr(Image, "ID", [*Image.ID, "HEIF"])


class TestHeif:
    @pytest.mark.parametrize("brand", BRANDS)
    def test_photos_without_an_opener_say_what_to_install(self, tmp_path, brand):
        """The content is a video that FFmpeg decodes, as it does the tiles and thumbnails of a photo."""
        data = media_bytes(container_format="mp4", audio_codec=None)
        assert load_clip(data).frames.shape == (1, 48, 64, 3)
        path = tmp_path / "photo.heic"
        path.write_bytes(data[:8] + brand.encode() + data[12:])
        expected = r"photo\.heic: expected an image, .*pip install pillow-heif, .*pillow_heif\.register_heif_opener\(\)"
        for read in (load_clip, probe_clip, read_image, lambda file: list(load_clips(file, num_clips=2))):
            with pytest.raises(MediaError, match=expected):
                read(path)
        with pytest.raises(MediaError, match="file object: expected an image, .*pillow-heif"):
            load_clip(path.read_bytes())

    @pytest.mark.parametrize("brand", BRANDS)
    def test_photos_are_decoded_by_a_registered_opener(self, tmp_path, opener, brand):
        path = tmp_path / "photo.heic"
        path.write_bytes(heif(brand, encoded("PNG")))
        clip = load_clip(path)
        assert clip.is_still
        assert np.array_equal(clip.frames, PHOTO[None])
        assert np.array_equal(read_image(path), PHOTO)
        assert np.array_equal(load_clip(path.read_bytes()).frames, PHOTO[None])

    def test_of_several_images_the_primary_one_is_shown(self, opener):
        clip = load_clip(heif("heic", encoded("GIF", [20, 200])))
        assert clip.is_still
        assert clip.frames.mean() == pytest.approx(20, abs=2)

    def test_damaged_photos_are_not_read_as_videos(self, opener):
        with pytest.raises(MediaError, match="expected an image, but it is a damaged HEIF image"):
            load_clip(heif("heic", b"none"))

    def test_orientations_are_applied(self, opener):
        exif = Image.Exif()
        exif[0x0112] = 6
        assert np.array_equal(load_clip(heif("heic", encoded("PNG", exif=exif))).frames[0], np.rot90(PHOTO, -1))

    @pytest.mark.parametrize("suffix", ["mp4", "mov"])
    def test_videos_of_the_same_codec_are_videos(self, tmp_path, suffix):
        options = {"codec": "libx265", "video_options": {"x265-params": "log-level=none"}}
        path = write_media(tmp_path / f"film.{suffix}", seconds=2, **options)
        assert load_clip(path, 1.0).frames.mean() == pytest.approx(gray_at(1.0), abs=2)
        assert not load_clip(path).is_still


class TestAvif:
    @needs_avif
    @pytest.mark.parametrize("brand", ["avif", "mif1"])
    def test_photos(self, brand):
        data = encoded("AVIF", quality=100)
        clip = load_clip(data[:8] + brand.encode() + data[12:])
        assert clip.is_still
        assert np.array_equal(clip.frames[0], np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))

    @needs_avif
    def test_animations_are_videos(self):
        data = encoded("AVIF", [20, 120, 220], duration=500)
        assert data[8:12] == b"avis"
        assert probe_clip(data).image_span == pytest.approx((0.0, 1.5))
        for time, level in ((0.25, 20), (0.75, 120), (1.25, 220)):
            assert load_clip(data, time).frames.mean() == pytest.approx(level, abs=3)

    @pytest.mark.parametrize("brand", ["avif", "avis", "mif1"])
    def test_photos_that_pillow_is_too_old_for_say_so(self, monkeypatch, brand):
        monkeypatch.setattr(stills_deepavfusion, "features", SimpleNamespace(modules={}))
        data = heif(brand, b"")[:16] + b"avif" + bytes(100)
        with pytest.raises(MediaError, match=r"an AVIF image, which Pillow opens from version 11\.3 on"):
            load_clip(data)

    @needs_avif
    def test_damaged_photos_say_so(self):
        with pytest.raises(MediaError, match="it is a damaged AVIF image"):
            load_clip(encoded("AVIF")[:60] + bytes(100))


class TestAnimations:
    LEVELS, MILLISECONDS = (0, 40, 80, 120, 160, 200), (100, 200, 100, 100, 100, 400)

    @pytest.fixture
    def webp(self, tmp_path):
        path = tmp_path / "animation.webp"
        path.write_bytes(encoded("WEBP", self.LEVELS, duration=list(self.MILLISECONDS), lossless=True))
        return path

    def test_frames_of_webp_are_shown_for_their_durations(self, webp):
        info = probe_clip(webp)
        assert info.image_span == pytest.approx((0.0, 1.0))
        assert not info.has_audio
        for source in (webp, webp.read_bytes()):
            clip = load_clip(source)
            assert clip.timestamp == pytest.approx(0.5)
            assert not clip.is_still
            shown = {0.0: 0, 0.09: 0, 0.11: 40, 0.29: 40, 0.31: 80, 0.45: 120, 0.55: 160, 0.99: 200}
            assert {time: load_clip(source, time).frames.mean() for time in shown} == shown
        frames = load_clip(webp, num_frames=4, seconds=1.0).frames
        assert frames.mean(axis=(1, 2, 3)).tolist() == [40, 80, 200, 200]
        with pytest.raises(MediaError, match=r"animation\.webp: expected a timestamp within 0\.00 to 1\.00 s"):
            load_clip(webp, 2.0)

    @pytest.mark.parametrize("num_frames", [1, 4])
    def test_webp_in_the_processor(self, webp, num_frames):
        processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(image_size=32, num_frames=num_frames))
        frames = (4,) if num_frames == 4 else ()
        assert processor(images=webp).pixel_values.shape == (1, *frames, 3, 32, 32)
        assert processor(videos=webp).pixel_values.shape == (1, *frames, 3, 32, 32)
        several = processor(videos=webp, timestamps=[0.05, 0.95]).pixel_values
        assert several.shape == (2, *frames, 3, 32, 32)
        if num_frames == 1:
            assert several[0].max() < several[1].min()

    def test_frames_of_webp_in_order(self, webp):
        reader = FrameReader.of(str(webp))
        assert [reader.at(time).mean() for time in (0.0, 0.2, 0.2, 0.45, 5.0)] == [0, 40, 40, 120, 200]
        reader.close()

    def test_frames_without_a_duration_are_shown_for_a_tenth_of_a_second(self):
        data = encoded("WEBP", [20, 120, 220], duration=0, lossless=True)
        assert probe_clip(data).image_span == pytest.approx((0.0, 0.3))

    def test_damaged_webp_raises(self, webp):
        data = webp.read_bytes()
        with pytest.raises(MediaError):
            load_clip(data[: len(data) * 2 // 3])

    @pytest.mark.parametrize("image_format", ["GIF", "PNG"])
    def test_other_animations_are_videos(self, image_format):
        data = encoded(image_format, [20, 120, 220], duration=500)
        assert load_clip(data, 0.75).frames.mean() == pytest.approx(120, abs=3)

    def test_still_webp(self):
        clip = load_clip(encoded("WEBP", lossless=True))
        assert clip.is_still
        assert np.array_equal(clip.frames[0], PHOTO)
