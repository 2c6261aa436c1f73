"""FaceNet: a network that was taught to tell people (or things) apart, taught to read expressions."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn

from fer_utils.datasets.faceset import FaceSet
from fer_utils.models.backbones import TRUNKS, Layer, MobileNetV1
from fer_utils.models.layers import kind
from fer_utils.models.normalise import resize
from fer_utils.models.pretrained import load_imagenet, load_vggface2


class FaceNet(nn.Module):
    """A pretrained trunk without its classifier, then FC 4096, FC 1024, FC 6, as in the poster's figure.

    ========== ========================================== ===================================
    layer      what it does                               output with `mobilenet_v1`
    ========== ========================================== ===================================
    input      grey image, enlarged, in three channels    3 × 96 × 96
    trunk      `mobilenet_v1`, `inception_resnet_v1` or   1024 (1792 and 2048 for the others)
               `resnet50`, and the mean over the image
    norm       zero mean, unit deviation a feature        1024
    fc1        fully connected, ReLU, dropout             `head[0]` = 4096
    fc2        fully connected, ReLU, dropout             `head[1]` = 1024
    fc3        fully connected, logits                    6
    ========== ========================================== ===================================

    The poster names trunk and layers; dropout and `norm` (without parameters) are this book's: trunks differ
    in the scale of their features, and so one learning rate suits them all.

    A new FaceNet has random weights; `load_pretrained` fills the trunk. Frozen layers keep their parameters
    (no gradient is computed for them or before them) and their batch normalisation stays in evaluation mode.

    Args:
        trunk: ``"mobilenet_v1"`` (3 million parameters, trains on a processor), ``"inception_resnet_v1"``
            (22 million), ``"resnet50"`` (24 million; the poster's), ``"efficientnet_lite0"`` (3 million, to
            compare with) or ``"easynet"`` (for the demo).
        pretrained: ``"vggface2"``, or ``"imagenet"`` for `efficientnet_lite0` and no other, or ``"none"`` to
            leave the trunk as `__init__` or `load_trunk` made it.
        freeze: how much of the trunk stays as it is. An int counts layers as Keras does, the input included
            (the poster: 100 of ResNet-50's 175); a float from 0 to 1 is a share of the layers.
        head: units of the fully connected layers before the last one; empty for a single linear layer.
        dropout: share of activations dropped after each of them, 0 to 1.
        input_size: side in pixels to which images are enlarged; none for the trunk's own (96, 160, 224, 224).
        trunk_width: factor on the channels of `mobilenet_v1` or `easynet` without pretrained weights.
        num_classes: number of logits.

    Raises:
        ValueError: an unknown trunk or source of weights, or more frozen layers than there are.
    """

    def __init__(
        self,
        trunk: str = "mobilenet_v1",
        pretrained: str = "vggface2",
        freeze: int | float = 0,
        head: tuple[int, ...] | list[int] = (4096, 1024),
        dropout: float = 0.5,
        input_size: int | None = None,
        trunk_width: float = 1.0,
        num_classes: int = 6,
    ) -> None:
        super().__init__()
        if trunk not in TRUNKS:
            raise ValueError(f"no trunk is called {trunk!r}; there are {', '.join(TRUNKS)}")
        known = TRUNKS[trunk].weights
        if known is None and pretrained != "none":
            raise ValueError(f"there are no public weights of {trunk!r}: say pretrained='none'")
        if pretrained not in (known, "none"):
            raise ValueError(f"pretrained is {pretrained!r}; for {trunk} it can be {known!r} or 'none'")
        if trunk_width != 1 and (pretrained != "none" or trunk not in ("mobilenet_v1", "easynet")):
            raise ValueError("trunk_width is for an untrained mobilenet_v1 or easynet: pretrained='none'")
        self.input_size = input_size or TRUNKS[trunk].size
        self.options = {
            "trunk": trunk,
            "pretrained": pretrained,
            "freeze": freeze,
            "head": list(head),
            "dropout": dropout,
            "input_size": self.input_size,
            "trunk_width": trunk_width,
            "num_classes": num_classes,
        }
        self.trunk = TRUNKS[trunk]() if trunk_width == 1 else TRUNKS[trunk](trunk_width)
        self.classifier = nn.Sequential()
        self.classifier.add_module("norm", nn.BatchNorm1d(self.trunk.features, affine=False))
        units = self.trunk.features
        for number, outputs in enumerate(head, 1):
            self.classifier.add_module(f"fc{number}", nn.Linear(units, outputs))
            self.classifier.add_module(f"relu{number}", nn.ReLU(inplace=True))
            self.classifier.add_module(f"drop{number}", nn.Dropout(dropout))
            units = outputs
        self.classifier.add_module(f"fc{len(head) + 1}", nn.Linear(units, num_classes))
        # The memory layout in which processors convolve fastest; results are the same.
        self.trunk.to(memory_format=torch.channels_last)
        self._freeze(freeze)

    def _freeze(self, freeze: int | float) -> None:
        layers = self.trunk.layers()
        count = round(freeze * len(layers)) if isinstance(freeze, float) else freeze
        if not 0 <= count <= len(layers):
            raise ValueError(
                f"freeze={freeze!r}: {self.options['trunk']} counts {len(layers)} layers; "
                "give an int up to that, or a float from 0 to 1"
            )
        self._layers, self.frozen_layers = layers, layers[:count]
        for layer in self.frozen_layers:
            if layer.module is not None:
                layer.module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> FaceNet:
        """Set training or evaluation mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        for layer in self.frozen_layers:
            if layer.module is not None:
                layer.module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: float (B, 1, 64, 64) grey, values 0–1.

        Returns:
            Logits, float (B, num_classes).
        """
        return self.classifier(self.trunk(self.enlarge(images)))

    def enlarge(self, images: Tensor) -> Tensor:
        """Scale float images (B, 1, H, W) of 0–1 to `input_size`, bicubic and antialiased."""
        return resize(images, self.input_size)

    def load_pretrained(self, train_faces: FaceSet) -> None:
        """Fill the trunk with its pretrained weights; nothing happens with ``pretrained="none"``.

        The weights of `mobilenet_v1` come with batch normalisation folded into the convolutions. It is taken
        apart again on training faces, without which training diverges at once; what the network computes
        stays the same. The other trunks do not look at the faces.

        Args:
            train_faces: the training set; up to 2,048 of its images, evenly spaced, are looked at.

        Raises:
            DataError: the weights cannot be fetched, are damaged or are those of another network.
        """
        if self.options["pretrained"] == "none":
            return
        load = load_imagenet if self.options["pretrained"] == "imagenet" else load_vggface2
        load(self.trunk)
        if isinstance(self.trunk, MobileNetV1):
            rows = (
                torch.linspace(0, len(train_faces) - 1, min(len(train_faces), 2048)).long().unique().numpy()
            )
            images = torch.from_numpy(train_faces.take(rows)).unsqueeze(1)
            self.trunk.unfold(self.enlarge(batch.float() / 255) for batch in images.split(128))
            self.train(self.training)  # frozen layers back to evaluation mode

    def load_trunk(self, state: dict[str, Tensor]) -> None:
        """Fill the trunk with weights of another trunk of its kind and width: its `state_dict()`."""
        self.trunk.load_state_dict(state)

    def stages(self) -> list[list[nn.Parameter]]:
        """Parameters by depth: of each block of the trunk from the input up, then of the head."""
        return stages(self.trunk, self.classifier)

    def frozen_table(self) -> pd.DataFrame:
        """The trunk's layers as Keras counts them, from the input at 0.

        Returns:
            `layer` (block/name), `kind` (words), `parameters` and `frozen`, one row a layer.
        """
        rows = [(name, _kind(Layer(name, module)), _size(module)) for name, module in self._layers]
        table = pd.DataFrame(rows, columns=["layer", "kind", "parameters"])
        return table.assign(frozen=table.index < len(self.frozen_layers))

    def describe_frozen(self) -> str:
        """What is frozen and what is trained, in two sentences."""
        table, head = self.frozen_table(), _size(self.classifier)
        frozen, trained = (int(table.loc[table["frozen"] == k, "parameters"].sum()) for k in (True, False))
        count, total = len(self.frozen_layers), len(table)
        last = f", up to {self.frozen_layers[-1].name}," if count else ""
        return (
            f"{self.options['trunk']}: {count} of {total} layers{last} are frozen, {frozen:,} parameters. "
            f"Trained are {trained:,} parameters of the trunk and {head:,} of the fully connected layers."
        )


def stages(trunk: nn.Sequential, classifier: nn.Module) -> list[list[nn.Parameter]]:
    """Parameters by depth: of each block of a trunk that has any, from the input up, then of the head."""
    return [list(b.parameters()) for b in (*trunk, classifier) if any(True for _ in b.parameters())]


def _size(module: nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())


def _kind(layer: Layer) -> str:
    return layer.name.split("/")[-1] if layer.module is None else kind(layer.module)
