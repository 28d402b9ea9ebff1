"""Writes the hostile corpus. An expected verdict is ``ok``, ``suspect: WORDS``, ``unreadable: WORDS`` or ``ignored``.

The expectations were written down by hand from what a person sees in each file, not taken from the code.
"""

# ruff: noqa: PTH103, PTH109, PTH118, PTH120, PTH123, PTH211
# Paths are bytes here: some names are no UTF-8.
from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

_SIDE = 64


def picture(seed: int = 0) -> np.ndarray:
    """A smooth gradient with a box: compresses well, has contrast, differs with the seed."""
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 255, (2, 2, 3)).astype(np.float32)
    pixels = cv2.resize(corners, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    left, top = generator.integers(4, 36, 2)
    pixels[top : top + 20, left : left + 20] = generator.integers(0, 255, 3)
    return np.clip(pixels + generator.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def jpeg(seed: int, **options: object) -> bytes:
    return encoded(Image.fromarray(picture(seed)), "JPEG", quality=90, **options)


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int, body: bytes) -> bytes:
    """A PNG whose header claims a size that its data may not have."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def _jpegs() -> dict[bytes, tuple[bytes, str]]:
    rgb = Image.fromarray(picture(1))
    whole = jpeg(2)
    scan = whole.index(b"\xff\xda") + 14
    damaged = bytearray(jpeg(3))
    damaged[-300:-200] = np.random.default_rng(3).bytes(100)
    frame = whole.index(b"\xff\xc0")
    lie = bytearray(jpeg(4))
    place = lie.index(b"\xff\xc0")
    lie[place + 5 : place + 9] = struct.pack(">HH", 65000, 65000)
    wrong_exif = jpeg(5, exif=exif(6)[:14] + b"\xff" * 40)
    progressive = jpeg(6, progressive=True)
    last_scan = progressive.rindex(b"\xff\xda")
    scan_bomb = progressive[:-2] + progressive[last_scan:-2] * 600 + b"\xff\xd9"
    return {
        b"rgb.jpg": (jpeg(7), "ok"),
        b"grey.jpg": (encoded(rgb.convert("L"), "JPEG"), "ok"),
        b"cmyk.jpg": (encoded(Image.fromarray(picture(8)).convert("CMYK"), "JPEG"), "ok"),
        b"cmyk_cut.jpg": (encoded(Image.fromarray(picture(9)).convert("CMYK"), "JPEG")[:-200], "unreadable: cut off"),
        b"progressive.jpg": (jpeg(10, progressive=True), "ok"),
        b"orientation.jpg": (jpeg(11, exif=exif(6)), "ok"),
        b"wrong_exif.jpg": (wrong_exif, "ok"),
        b"half.jpg": (whole[: len(whole) // 2], "unreadable: cut off"),
        b"header_only.jpg": (whole[:scan], "unreadable: cut off"),
        b"three_bytes.jpg": (whole[:3], "unreadable: "),
        b"no_frame.jpg": (whole[:frame], "unreadable: "),
        b"no_end.jpg": (whole[:-2], "suspect: end marker"),
        b"trailing.jpg": (jpeg(12) + b"appended by a broken upload" * 9, "suspect: bytes follow"),
        b"damaged_scan.jpg": (bytes(damaged), "suspect: damaged"),
        b"size_lie.jpg": (bytes(lie), "unreadable: pixels"),
        b"scan_bomb.jpg": (scan_bomb, "unreadable: scans"),
        b"one_pixel.jpg": (encoded(Image.new("RGB", (1, 1), (9, 200, 30)), "JPEG"), "ok"),
        b"strip.jpg": (encoded(Image.new("RGB", (3000, 2), (90, 20, 30)), "JPEG"), "ok"),
        b"is_jpeg.png": (jpeg(13), "ok"),
        b"no_extension": (jpeg(14), "ok"),
        b"odd.extension": (jpeg(15), "ok"),
    }


def _pngs() -> dict[bytes, tuple[bytes, str]]:
    rgb = Image.fromarray(picture(20))
    rgba = rgb.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgb.size))
    palette = rgb.quantize(32)
    grey16 = Image.fromarray(np.linspace(0, 65535, _SIDE * _SIDE).reshape(_SIDE, _SIDE).astype(np.uint16))
    rgb16 = cv2.imencode(".png", picture(21).astype(np.uint16) * 257)[1].tobytes()
    whole = encoded(rgb, "PNG")
    crc = bytearray(whole)
    crc[len(crc) // 2] ^= 0xFF
    text = PngImagePlugin.PngInfo()
    text.add_text("bomb", "x" * (80 << 20), zip=True)
    return {
        b"rgb.png": (encoded(Image.fromarray(picture(22)), "PNG"), "ok"),
        b"is_png.jpg": (encoded(Image.fromarray(picture(23)), "PNG"), "ok"),
        b"alpha.png": (encoded(rgba, "PNG"), "ok"),
        b"palette.png": (encoded(Image.fromarray(picture(24)).quantize(16), "PNG"), "ok"),
        b"palette_transparent.png": (encoded(palette, "PNG", transparency=3), "ok"),
        b"colour_key.png": (encoded(Image.fromarray(picture(25)), "PNG", transparency=(1, 2, 3)), "ok"),
        b"one_bit.png": (encoded(rgb.convert("1"), "PNG"), "ok"),
        b"grey.png": (encoded(Image.fromarray(picture(26)).convert("L"), "PNG"), "ok"),
        b"grey_alpha.png": (encoded(rgba.convert("LA"), "PNG"), "ok"),
        b"grey16.png": (encoded(grey16, "PNG"), "ok"),
        b"rgb16.png": (rgb16, "ok"),
        b"orientation.png": (encoded(Image.fromarray(picture(27)), "PNG", exif=exif(8)), "ok"),
        b"animated.png": (encoded(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90)]), "ok"),
        b"cut.png": (whole[: len(whole) // 2], "unreadable: "),
        b"changed_bytes.png": (bytes(crc), "unreadable: "),
        b"header_only.png": (whole[:33], "unreadable: "),
        b"trailing.png": (encoded(Image.fromarray(picture(28)), "PNG") + b"junk" * 30, "suspect: bytes follow"),
        b"bomb.png": (png_claiming(60_000, 60_000, bytes(1 << 20)), "unreadable: pixels"),
        b"bomb_below_pillow_limit.png": (png_claiming(12_000, 9_000, bytes(1 << 20)), "unreadable: pixels"),
        b"short_data.png": (png_claiming(400, 400, bytes(100)), "unreadable: "),
        b"text_bomb.png": (encoded(rgb, "PNG", pnginfo=text), "unreadable: "),
        b"zero_size.png": (png_claiming(0, 10, b""), "unreadable: "),
    }


def _others() -> dict[bytes, tuple[bytes, str]]:
    rgb = Image.fromarray(picture(40))
    float_ramp = Image.fromarray(np.linspace(0, 1, _SIDE * _SIDE, dtype=np.float32).reshape(_SIDE, _SIDE))
    not_finite = np.linspace(0, 1, _SIDE * _SIDE, dtype=np.float32).reshape(_SIDE, _SIDE).copy()
    not_finite[:2] = np.nan
    int_ramp = Image.fromarray(np.arange(_SIDE * _SIDE, dtype=np.int32).reshape(_SIDE, _SIDE) * 1000)
    frames = [Image.fromarray(picture(seed)) for seed in (41, 42)]
    tiff = encoded(Image.fromarray(picture(43)), "TIFF")
    webp = encoded(Image.fromarray(picture(44)), "WEBP", quality=90)
    gif = encoded(Image.fromarray(picture(45)), "GIF")
    pgm16 = b"P5 64 64 65535\n" + np.linspace(0, 65535, 4096).astype(">u2").tobytes()
    alpha = rgb.convert("RGBA")
    alpha.putalpha(128)
    loop = bytearray(tiff)
    struct.pack_into("<I", loop, len(loop) - 4, 8)  # the last pointer to a next directory leads to the first
    return {
        b"still.gif": (encoded(Image.fromarray(picture(46)), "GIF"), "ok"),
        b"animated.gif": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "ok"),
        b"cut.gif": (gif[: len(gif) // 2], "unreadable: "),
        b"bomb.gif": (gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:], "unreadable: pixels"),
        b"rgb.bmp": (encoded(Image.fromarray(picture(47)), "BMP"), "ok"),
        b"one_bit.bmp": (encoded(Image.fromarray(picture(48)).convert("1"), "BMP"), "ok"),
        b"cut.bmp": (encoded(rgb, "BMP")[:500], "unreadable: "),
        b"rgb.tiff": (encoded(Image.fromarray(picture(49)), "TIFF"), "ok"),
        b"float.tiff": (encoded(float_ramp, "TIFF"), "ok"),
        b"not_finite.tiff": (encoded(Image.fromarray(not_finite), "TIFF"), "ok"),
        b"int32.tiff": (encoded(int_ramp, "TIFF"), "ok"),
        b"cmyk.tiff": (encoded(Image.fromarray(picture(50)).convert("CMYK"), "TIFF"), "ok"),
        b"lab.tiff": (encoded(Image.fromarray(picture(51)).convert("RGB").convert("YCbCr"), "TIFF"), "ok"),
        b"pages.tiff": (encoded(frames[1], "TIFF", save_all=True, append_images=frames[:1]), "ok"),
        b"deflate.tiff": (encoded(Image.fromarray(picture(52)), "TIFF", compression="tiff_adobe_deflate"), "ok"),
        b"orientation.tiff": (encoded(Image.fromarray(picture(53)), "TIFF", tiffinfo={274: 6}), "ok"),
        b"cut.tiff": (tiff[: len(tiff) // 2], "unreadable: "),
        b"directory_loop.tiff": (bytes(loop), "ok"),
        b"lossy.webp": (webp, "ok"),
        b"lossless.webp": (encoded(Image.fromarray(picture(54)), "WEBP", lossless=True), "ok"),
        b"alpha.webp": (encoded(alpha, "WEBP"), "ok"),
        b"animated.webp": (encoded(frames[0].rotate(9), "WEBP", save_all=True, append_images=frames[1:]), "ok"),
        b"cut.webp": (webp[: len(webp) // 2], "unreadable: "),
        b"rgb.avif": (encoded(Image.fromarray(picture(55)), "AVIF"), "ok"),
        b"rgb.jp2": (encoded(Image.fromarray(picture(56)), "JPEG2000"), "ok"),
        b"rgb.ppm": (encoded(Image.fromarray(picture(57)), "PPM"), "ok"),
        b"grey16.pgm": (pgm16, "ok"),
        b"icon.ico": (encoded(Image.fromarray(picture(58)), "ICO"), "ok"),
        b"rgb.qoi": (_qoi(), "ok"),
        b"photo.heic": (_heic(picture(59)), "ok"),
        b"empty.jpg": (b"", "unreadable: empty"),
        b"text.jpg": (b"I am not an image\n" * 40, "unreadable: no image format"),
        b"page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "unreadable: no image format"),
        b"drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9'/></svg>", "unreadable: no image"),
        b"postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", "unreadable: no image format"),
        b"document.jpg": (b"%PDF-1.7\n%%EOF\n", "unreadable: no image format"),
        b"archive.png": (b"PK\x03\x04" + bytes(200), "unreadable: no image format"),
        b"zeros.jpg": (bytes(4096), "unreadable: no image format"),
        b"notes.txt": (b"labels by Anna", "ignored"),
        b"labels.csv": (b"path,label\n", "ignored"),
        b".hidden.jpg": (jpeg(60), "ignored"),
        b"._rgb.jpg": (b"\0\x05\x16\x07" + bytes(80), "ignored"),
        b".DS_Store": (b"\0\0\0\x01Bud1", "ignored"),
        b"Thumbs.db": (b"\xd0\xcf\x11\xe0", "ignored"),
        b"line\nbreak.jpg": (jpeg(61), "ok"),
        b"comma, \"quote\".jpg": (jpeg(62), "ok"),
        b"nai\xc3\xafve.jpg": (jpeg(63), "ok"),
        b"not-utf8-\xff\xfe.jpg": (jpeg(64), "ok"),
        b"n" * 251 + b".jpg": (jpeg(65), "ok"),
        b" space at both ends .jpg ": (jpeg(66), "ok"),
        b"UPPER.JPG": (jpeg(67), "ok"),
        b"nested/deeper/image.jpg": (jpeg(68), "ok"),
    }  # fmt: skip


def _qoi() -> bytes:
    """One run of a QOI file: the format is small enough to write by hand (qoiformat.org)."""
    pixels = b"".join(b"\xfe" + bytes(pixel) for pixel in picture(69).reshape(-1, 3))
    return b"qoif" + struct.pack(">IIBB", _SIDE, _SIDE, 3, 0) + pixels + bytes(7) + b"\x01"


def _heic(pixels: np.ndarray) -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(buffer, quality=90)
    return buffer.getvalue()


def write(folder: Path) -> dict[bytes, str]:
    """Fill ``folder`` (one class of a data set); expected verdict by name relative to it."""
    base = os.fsencode(folder)
    expected: dict[bytes, str] = {}
    for name, (content, verdict) in {**_jpegs(), **_pngs(), **_others()}.items():
        path = os.path.join(base, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        expected[name] = verdict
    os.mkfifo(os.path.join(base, b"pipe.jpg"))
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)  # a socket's path is limited to 108 bytes
        server.bind("socket.jpg")
        os.chdir(here)
    os.symlink("/dev/zero", os.path.join(base, b"device.jpg"))
    os.symlink("nowhere.jpg", os.path.join(base, b"broken.jpg"))
    os.symlink(b".", os.path.join(base, b"loop"))
    os.symlink("selfish.jpg", os.path.join(base, b"selfish.jpg"))
    for name in (b"pipe.jpg", b"socket.jpg", b"device.jpg", b"broken.jpg", b"loop", b"selfish.jpg"):
        expected[name] = "ignored"
    os.symlink("rgb.jpg", os.path.join(base, b"linked.jpg"))
    expected[b"linked.jpg"] = "ok"
    return expected
