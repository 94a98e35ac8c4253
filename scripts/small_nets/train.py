"""Trains the small nets that the tests use; writes them and labelled samples to tests/data.

The nets and samples are committed, so nobody needs to run this to use or test the project. Running
it again needs PyTorch and scikit-learn (`pip install torch scikit-learn onnx onnxscript`) and, for
Fashion-MNIST, the Debian package `dataset-fashion-mnist`, which it downloads with `apt-get` and
unpacks without root. Ten to twenty minutes on two cores.

    python scripts/small_nets/train.py digits
    python scripts/small_nets/train.py fashion --epochs 12
    python scripts/small_nets/train.py fashion_mobile --epochs 12
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
from data import digits, fashion
from nets import MobileNet, SmallNet

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
SAMPLES = 300


def as_input(pictures: np.ndarray) -> torch.Tensor:
    """uint8 [n, h, w] to float32 [n, 1, h, w] in 0..1."""
    return torch.from_numpy(pictures[:, None].astype(np.float32) / np.float32(255))


def train(net: nn.Module, x: np.ndarray, y: np.ndarray, epochs: int, *, flip: bool) -> None:
    net.to(memory_format=torch.channels_last)  # Twice as fast on a CPU where it is depthwise.
    images, labels = as_input(x), torch.from_numpy(y.astype(np.int64))
    batch = 128
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.SGD(net.parameters(), momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    for epoch in range(epochs):
        net.train()
        total = 0.0
        for index in torch.randperm(len(images)).split(batch):
            if len(index) < batch:
                continue
            picture = images[index]
            if flip and torch.rand(()) < 0.5:
                picture = picture.flip(-1)
            picture = picture.contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(net(picture), labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}  loss {total * batch / len(images):.4f}", flush=True)


@torch.no_grad()
def accuracy(net: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    net.eval()
    hits = sum(
        int((net(as_input(x[i : i + 500])).argmax(1).numpy() == y[i : i + 500]).sum())
        for i in range(0, len(x), 500)
    )
    return hits / len(x)


def export(net: nn.Module, side: int, path: Path) -> None:
    net.eval()
    example = torch.zeros(2, 1, side, side)
    torch.onnx.export(
        net,
        (example,),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        opset_version=20,
        external_data=False,
        verbose=False,
    )
    model = onnx.load(path)
    for node in model.graph.node:  # The exporter's stack traces, with this machine's paths.
        node.ClearField("metadata_props")
    onnx.save(model, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", choices=("digits", "fashion", "fashion_mobile"))
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.net == "digits":
        data, net, epochs, flip = digits(), SmallNet(16), args.epochs or 60, False
    else:
        net = SmallNet(24) if args.net == "fashion" else MobileNet()
        data, epochs, flip = fashion(), args.epochs or 12, True
    x, y, x_test, y_test = data
    train(net, x, y, epochs, flip=flip)
    print(f"{args.net}: {accuracy(net, x_test, y_test):.2%} top-1 on {len(x_test)} test pictures")
    DATA.mkdir(parents=True, exist_ok=True)
    export(net, x.shape[1], DATA / f"{args.net}.onnx")
    if args.net == "fashion_mobile":
        return  # Its samples are those of `fashion`.
    pick = np.random.default_rng(1).permutation(len(x_test))[:SAMPLES]
    calibration = np.random.default_rng(2).permutation(len(x))[:64]
    np.savez_compressed(
        DATA / f"{args.net}.npz",
        images=x_test[pick],
        labels=y_test[pick],
        calibration=x[calibration],
    )


if __name__ == "__main__":
    main()
