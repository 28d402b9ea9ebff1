"""The one loader shows what a person sees: upright, composited, scaled; and says why when it cannot."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from finetune.data.image import MAX_PIXELS, decode, read_image
from finetune.errors import ImageError


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def quadrants() -> np.ndarray:
    """32 x 48 with four colours: every orientation looks different."""
    image_HWC = np.zeros((32, 48, 3), dtype=np.uint8)
    image_HWC[:16, :24], image_HWC[:16, 24:] = (200, 30, 30), (30, 200, 30)
    image_HWC[16:, :24], image_HWC[16:, 24:] = (30, 30, 200), (220, 220, 60)
    return image_HWC


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_show_the_same_upright_pixels(kind: str, orientation: int) -> None:
    upright = quadrants()
    undo = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    # store the pixels as a camera held that way would: Pillow's own transposition, inverted
    stored = Image.fromarray(upright)
    with_undo = Image.open(io.BytesIO(saved(stored, "PNG", exif=exif(undo))))
    camera = ImageOps.exif_transpose(with_undo)
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    got = read_image(saved(camera, kind, exif=exif(orientation), **options))
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).mean() < (3 if kind == "JPEG" else 1e-9)


def test_a_reduced_decode_is_upright_as_well_and_never_below_what_was_asked() -> None:
    tall = np.ascontiguousarray(np.kron(quadrants(), np.ones((20, 20, 1), dtype=np.uint8)))  # 640 x 960
    data = saved(Image.fromarray(tall), "JPEG", quality=95, exif=exif(6))
    for wanted in (8, 100, 160, 161, 300, 639, 640, 5000):
        got = read_image(data, min_size_px=wanted)
        assert min(got.shape[:2]) >= min(wanted, 640)
        assert got.shape[0] > got.shape[1]
    assert read_image(data, min_size_px=160).shape == (240, 160, 3)  # a quarter of 960 x 640


def test_reduced_decoding_shows_the_same_picture(photograph) -> None:
    whole = photograph(3, height=600, width=800)
    data = simplejpeg.encode_jpeg(whole, quality=95)
    reduced = Image.fromarray(read_image(data, min_size_px=150)).resize((80, 60), Image.Resampling.BOX)
    expected = Image.fromarray(whole).resize((80, 60), Image.Resampling.BOX)
    assert np.abs(np.asarray(reduced).astype(int) - np.asarray(expected)).mean() < 3


def ramp(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 128 * 128).reshape(128, 128)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("PNG", ramp(0, 65535).astype(np.uint16)),
        ("TIFF", ramp(0, 65535).astype(np.uint16)),
        ("PNG", ramp(0, 4095).astype(np.uint16)),
        ("TIFF", ramp(0, 1).astype(np.float32)),
        ("TIFF", ramp(0, 255).astype(np.float32)),
        ("TIFF", ramp(0, 65535).astype(np.float32)),
        ("TIFF", ramp(-3, 5).astype(np.float32)),
        ("TIFF", ramp(-1e6, 1e6).astype(np.int32)),
        ("TIFF", ramp(0, 255).astype(np.int32)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}_{value.min():g}_{value.max():g}",
)
def test_deep_and_float_gradients_keep_their_mean(kind: str, values: np.ndarray) -> None:
    decoded = decode(saved(Image.fromarray(values), kind))
    assert abs(decoded.image_HWC.mean() - 127) <= 1
    assert decoded.image_HWC.min() == 0
    assert decoded.image_HWC.max() == 255
    assert "scaled" in decoded.notes[0]


def test_values_that_are_not_finite_are_black_and_do_not_move_the_others() -> None:
    values = ramp(0, 1).astype(np.float32)
    values[0, :2] = np.nan, np.inf
    got = read_image(saved(Image.fromarray(values), "TIFF"))
    assert got[0, :2].max() == 0
    assert abs(got.mean() - 127) <= 1


def test_transparent_pixels_show_the_stated_background() -> None:
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    image.putpixel((0, 0), (10, 20, 30, 255))
    image.putpixel((1, 0), (0, 0, 0, 51))  # a fifth of black over the background
    got = read_image(saved(image, "PNG"), background=(200, 100, 50))
    assert got[0, 0].tolist() == [10, 20, 30]
    assert got[0, 1].tolist() == [160, 80, 40]
    assert got[3, 3].tolist() == [200, 100, 50]


def test_a_palette_with_a_transparent_entry_is_composited_and_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert read_image(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0].tolist() == [255, 0, 0]
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    got = read_image(saved(palette, "PNG", transparency=1), background=(1, 2, 3))
    assert got[0].tolist() == [[255, 0, 0], [1, 2, 3]]


def test_grey_and_cmyk_and_one_bit_images_have_the_colours_that_pillow_shows() -> None:
    colours = Image.fromarray(quadrants())
    for mode, kind in (("L", "PNG"), ("1", "PNG"), ("CMYK", "TIFF"), ("L", "JPEG")):
        data = saved(colours.convert(mode), kind)
        assert np.abs(read_image(data).astype(int) - np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).max() <= 2


def test_large_images_are_converted_in_strips_without_a_seam() -> None:
    side = 1600  # more pixels than one strip holds
    values = np.linspace(0, 65535, side * side).reshape(side, side).astype(np.uint16)
    got = read_image(saved(Image.fromarray(values), "PNG", compress_level=1))
    assert np.abs(got[:, :, 0].astype(int) - np.rint(values / 257).astype(int)).max() <= 1


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(quadrants()), "JPEG")
    for content, words in (
        (b"", "empty"),
        (b"hello", "no image format"),
        (whole[:400], "cannot be decoded"),
        (whole[:-20], "cut off"),
    ):
        file = tmp_path / "x.jpg"
        file.write_bytes(content)
        with pytest.raises(ImageError, match=words) as caught:
            read_image(file)
        assert caught.value.path == str(file)
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=r"32 x 48 = 1,536 pixels; at most 100"):
        read_image(whole, max_pixels=100)
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_bytes_after_the_end_and_a_missing_end_are_damage_but_the_picture_is_used() -> None:
    whole = saved(Image.fromarray(quadrants()), "JPEG")
    assert decode(whole).damage == ()
    assert "27 bytes follow" in decode(whole + b"x" * 27).damage[0]
    assert "end marker" in decode(whole[:-2]).damage[0]
    assert (read_image(whole[:-2]) == read_image(whole)).all()
    png = saved(Image.fromarray(quadrants()), "PNG")
    assert "3 bytes follow" in decode(png + b"abc").damage[0]
