"""The command line: `fer data | fetch | demo | merge | check | train | evaluate | publish | …`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

from fer_utils.errors import DataError

# Torch and Lightning take seconds to import, so each command imports what it needs.


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, or 1 after an error that is printed without a traceback."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (DataError, ValueError, OSError) as error:
        print(f"fer {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fer {options.command}: stopped", file=sys.stderr)
        return 130


def _data(options: argparse.Namespace) -> int:
    from fer_utils.datasets.inventory import inventory

    text, damaged = inventory(_workspace(options).data)
    print(text)
    return int(damaged)


def _fetch(options: argparse.Namespace) -> None:
    from fer_utils.datasets.fer2013 import fetch

    fetch(_workspace(options).data)


def _demo(options: argparse.Namespace) -> None:
    from fer_utils.workspace import workspace

    faces = workspace("demo").faces(anew=options.anew)
    print(f"{len(faces):,} drawn faces are merged in {faces.path}")


def _merge(options: argparse.Namespace) -> None:
    from fer_utils.datasets import read_sources
    from fer_utils.datasets.merge import merge

    space = _workspace(options)
    out = Path(options.out) if options.out else space.faceset
    sources = read_sources(space.data, options.sources or None)
    faces = merge(sources, out, disgust=options.disgust, seed=options.seed)
    if space.profile == "full" and out == space.faceset:
        from fer_utils.files import atomic_write
        from fer_utils.results import DATA

        (space.results / DATA).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(space.results / DATA, (out / "manifest.json").read_text(encoding="utf-8"))
    print(faces.counts().to_string())
    print(f"\n{len(faces):,} faces are merged in {out}; `manifest.json` there lists what was dropped and why")


def _check(options: argparse.Namespace) -> int:
    from reading_faces.study import checked
    from reading_faces.study.checks import Check, Proof

    failed = []

    def report(outcome: Check | Proof) -> None:
        if isinstance(outcome, Check):
            good, text = outcome.passed, f"{outcome.name}: {outcome.value} (asked for: {outcome.threshold})"
            verdict = outcome.verdict
        else:
            good = outcome.named is not False
            text = f"swapped in {outcome.source}: {' and '.join(outcome.classes)}; named: {outcome.said}"
            verdict = outcome.verdict
        failed.extend([] if good else [text])
        print(f"{verdict:12s}  {text}", flush=True)

    recipe = dict(_pair(text) for text in options.set)
    if options.epochs is not None:
        recipe["epochs"] = options.epochs
    path = checked.run(
        _workspace(options),
        name=options.name,
        seed=options.seed,
        recipe_changes=recipe,
        model_options=dict(_pair(text) for text in options.option),
        steps=options.steps,
        swaps=[tuple(swap) for swap in options.swap],
        report=report,
    )
    print(f"written to {path}")
    return 1 if failed else 0


def _train(options: argparse.Namespace) -> None:
    from fer_utils.runs import train

    if not re.fullmatch(r"auto|-1|\d+(,\d*)*", options.devices):
        raise ValueError(f"--devices is {options.devices!r}; it must be auto, a number, or a list like 0,1")
    recipe = dict(_pair(text) for text in options.set)
    for name in ("epochs", "lr", "batch_size", "optimizer", "schedule"):
        if getattr(options, name) is not None:
            recipe[name] = getattr(options, name)
    space = _workspace(options)
    name = options.name or f"{options.network}-seed{options.seed}"
    run = train(
        space,
        options.network,
        seed=options.seed,
        name=name,
        sources=options.sources or None,
        validate_on=options.validate_on or None,
        recipe_changes=recipe,
        model_options=dict(_pair(text) for text in options.option),
        teachers=options.teachers,
        labels=options.labels,
        share=options.share,
        resume=options.resume,
        progress=not options.no_progress and sys.stdout.isatty(),
        **{
            name: getattr(options, name)
            for name in ("accelerator", "devices", "num_nodes", "strategy", "precision")
        },
    )
    best = run.best
    print(
        f"best on validation: epoch {int(best['epoch'])}, {best['val_accuracy']:.1%} right. "
        f"`fer evaluate {name} --profile {space.profile}` writes its results file"
    )


def _calibrate(options: argparse.Namespace) -> None:
    from fer_utils.calibrated import calibrate

    folder = calibrate(_workspace(options), options.name)
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    accuracy = about["calibrated"]["accuracy"]
    print(
        f"{accuracy['before']:.2%} of the validation images are right before, and, cross-validated, "
        f"{accuracy['after, cross-validated']:.2%} after. "
        f"`fer evaluate {about['name']} --profile {options.profile}` scores the new run"
    )


def _command(options: argparse.Namespace) -> None:
    from fer_utils.recipes import command
    from fer_utils.results import read

    print(command(read(_workspace(options).results / f"{options.name}.json")))


def _evaluate(options: argparse.Namespace) -> None:
    from fer_utils.runs import evaluate

    path = evaluate(_workspace(options), options.name, test=options.test)
    result = json.loads(path.read_text(encoding="utf-8"))
    for split in ("validation", "test"):
        for variant, scores in result.get(split, {}).items():
            low, high = scores["accuracy_interval"]
            print(
                f"{split:10s}  {variant:24s} {scores['images']:6d} images  "
                f"accuracy {scores['accuracy']:.2%}  95 % interval {low:.2%} to {high:.2%}"
            )
    print(f"written to {path}")


def _compare(options: argparse.Namespace) -> None:
    from reading_faces.study.compare import paired

    found = paired(
        _workspace(options), options.first, options.second, split=options.split, source=options.source
    )
    print(
        f"{found['images']:,} {options.split} images of {options.source}: "
        f"{options.first} {found['accuracy'][0]:.2%}, {options.second} {found['accuracy'][1]:.2%}; "
        f"right alone {found['only_a']} and {found['only_b']}, "
        f"p = {found['p']:.2g} (McNemar, exact)"
    )


def _compare_all(options: argparse.Namespace) -> None:
    from reading_faces.study.compare import NETWORKS, networks

    chosen = {n: getattr(options, n) for n in NETWORKS}
    report = networks(_workspace(options), chosen, source=options.source, name=options.name)
    for pair in report["pairs"]:
        print(
            f"{pair['what']:18s}  {pair['variant']:12s}  {pair['runs'][0]} {pair['accuracy'][0]:.2%}, "
            f"{pair['runs'][1]} {pair['accuracy'][1]:.2%}, difference {pair['difference']:+.2%} "
            f"({pair['interval'][0]:+.2%} to {pair['interval'][1]:+.2%}), p = {pair['p']:.2g}"
        )
    for mixed in report["ensembles"]:
        low, high = mixed["test"]["accuracy_interval"]
        print(f"ensemble  {mixed['name']}, {mixed['variant']}: {mixed['test']['accuracy']:.2%} "
              f"({low:.2%} to {high:.2%})")  # fmt: skip


def _depth(options: argparse.Namespace) -> None:
    from reading_faces.study.compare import depth

    report = depth(
        _workspace(options), seeds=options.seeds, epochs=options.epochs, precision=options.precision
    )
    for run in report["runs"]:
        print(f"{run['name']}, seed {run['seed']}: {run['parameters']:,} parameters, validation "
              f"{run['validation']['accuracy']:.2%}")  # fmt: skip


def _pretraining(options: argparse.Namespace) -> None:
    from reading_faces.study.pretraining import compare

    def report(run: dict[str, Any]) -> None:
        scores = ", ".join(f"{s} {run[s]['accuracy']:.2%}" for s in ("validation", "test") if s in run)
        print(
            f"{run['name']}: {run['parameters']:,} parameters, {run['seconds']:,.0f} s, {scores}", flush=True
        )

    found = compare(
        _workspace(options),
        how=options.how,
        seeds=options.seeds,
        epochs=options.epochs,
        size=options.size,
        test=options.test,
        recipe_changes=dict(_pair(text) for text in options.set),
        precision=options.precision,
        report=report,
    )
    print(f"{len(found['runs'])} runs stand in comparisons/pretraining.json below the results")


def _merging(options: argparse.Namespace) -> None:
    from reading_faces.study.compare import merging

    report = merging(
        _workspace(options),
        network=options.network,
        seeds=tuple(options.seeds),
        recipe_changes={} if options.epochs is None else {"epochs": options.epochs},
        precision=options.precision,
    )
    for pair in report["pairs"]:
        print(f"seed {pair['seed']}: all {pair['accuracy'][0]:.2%}, {report['alone']} alone "
              f"{pair['accuracy'][1]:.2%}, p = {pair['p']:.2g} (McNemar, exact)")  # fmt: skip


def _labels(options: argparse.Namespace) -> None:
    from reading_faces.study import labels

    space = _workspace(options)
    report = labels.write_agreement(space)
    for split, found in report["splits"].items():
        print(
            f"{split:10s}  {found['images']:6d} images with votes: the label is the top vote of "
            f"{found['top']['share']:.1%}, entropy of the votes {found['entropy']['mean']:.2f} bits"
        )
    if options.runs:
        for name, run in labels.write_networks(space, options.runs)["runs"].items():
            for split, found in run["splits"].items():
                print(
                    f"{split:10s}  {name}: {found['label']['share']:.1%} of the labels, "
                    f"{found['majority']['share']:.1%} of {found['majority']['of']:,} majorities of FER+"
                )
    print(f"written to {space.results / labels.FOLDER}")


def _crossfit(options: argparse.Namespace) -> None:
    from reading_faces.study import labels

    recipe = dict(_pair(text) for text in options.set)
    if options.epochs is not None:
        recipe["epochs"] = options.epochs
    space = _workspace(options)
    report = labels.crossfit(
        space,
        options.network,
        seed=options.seed,
        folds=options.folds,
        name=options.name,
        sources=options.sources or None,
        recipe_changes=recipe,
        model_options=dict(_pair(text) for text in options.option),
        votes_too=options.labels == "both",
        resume=options.resume,
        precision=options.precision,
    )
    found = report["differs"]
    print(
        f"{found['doubted']:,} of {report['images']:,} labels are doubted. The top vote of FER+ is another "
        f"word than the label in {found['wrong']['share'] or 0:.1%} of all, "
        f"in {found['precision']['share'] or 0:.1%} of these; found are {found['recall']['share'] or 0:.1%}"
    )
    print(f"written to {space.results / labels.FOLDER}")


def _sweep(options: argparse.Namespace) -> int:
    from reading_faces.study import sweep

    space, budget = _workspace(options), dict(_pair(text) for text in options.set)
    if options.trials is not None:
        budget["trials"] = options.trials
    path = space.results / sweep.FOLDER / f"{options.name}.json"
    if options.retrain:
        return _retrain(space, sweep.read(path))
    report = sweep.run(
        space,
        name=options.name,
        seed=options.seed,
        budget_changes=budget,
        precision=options.precision,
        storage=options.storage,
        anew=options.anew,
    )
    for optimizer, best in report["best"].items():
        again = ", ".join(f"{value:.1%}" for value in best["again"])
        print(f"{optimizer}: best {best['value']:.1%}, with other seeds {again}\n  {best['command']}")
    print(f"written to {path}")
    return 0


def _retrain(space: Any, report: dict[str, Any]) -> int:
    from reading_faces.study.sweep import retrain

    missed = 0
    for optimizer, best in report["best"].items():
        value = float(retrain(space, report, optimizer, verbose=False).best["val_accuracy"])
        missed += value != best["value"]
        print(f"{optimizer}: {best['value']:.4%} in the search, {value:.4%} when trained again", flush=True)
    return int(missed > 0)


def _publish(options: argparse.Namespace) -> None:
    from fer_utils.workspace import project_root
    from reading_faces.study.publish import publish

    if options.profile == "demo" and not options.out:
        raise ValueError("drawn faces make no network to publish among the others: say where with --out")
    folder = Path(options.out) if options.out else project_root() / "fer_utils" / "weights_data"
    weights = publish(_workspace(options), options.name, folder)
    print(f"the weights are in {weights}, their model card beside them")


def _predict(options: argparse.Namespace) -> None:
    from fer_utils.runs import predict_files

    print(predict_files([Path(p) for p in options.images], options.checkpoint).to_string(index=False))


def _export(options: argparse.Namespace) -> None:
    faces = _workspace(options).faces()
    faces.export_folder(Path(options.out))
    print(f"{len(faces):,} faces are exported to {options.out}")


def _workspace(options: argparse.Namespace) -> Any:
    from fer_utils.workspace import workspace

    space = workspace(options.profile)
    if options.data and options.profile == "demo":
        raise ValueError("--profile demo draws its own faces, so --data does not go with it")
    if options.data:
        space = dataclasses.replace(space, data=Path(options.data))
    return space


def _pair(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"{text!r} is not of the form name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fer", description="Read, merge, train and evaluate, as the chapters do."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--profile", choices=("demo", "full"), default="full", help="drawn or real faces")
        sub.add_argument("--data", metavar="FOLDER", help="root of the data (default: FER_DATA, or data/)")
        return sub

    command("data", _data, "show which data sets were found, and where to get the rest")
    command("fetch", _fetch, "fetch Kaggle's copy of FER2013 with your own credentials")
    sub = command("demo", _demo, "draw the demo faces and merge them")
    sub.add_argument("--anew", action="store_true", help="even if they are there already")

    sub = command("merge", _merge, "merge what was found to six classes of 64×64 grey faces")
    sub.add_argument("--out", metavar="FOLDER", help="where to (default: build/<profile>/faceset)")
    sub.add_argument("--sources", nargs="+", metavar="NAME", help="only these data sets")
    sub.add_argument(
        "--disgust", choices=("drop", "angry"), default="drop", help="leave out, or fold into angry"
    )
    sub.add_argument("--seed", type=int, default=0, help="of the split by subject")

    sub = command("check", _check, "check the merged set with EmoNet, as chapter 2 does")
    sub.add_argument("--name", default="emonet-checks", help="of the file that is written")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--epochs", type=int, help="of each training but learning by heart")
    sub.add_argument(
        "--steps", type=int, default=320, help="least steps of a network where sources are compared"
    )
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the recipe")
    sub.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="change EmoNet, e.g. width=0.125"
    )
    sub.add_argument(
        "--swap",
        nargs=3,
        action="append",
        default=[],
        metavar=("SOURCE", "CLASS", "CLASS"),
        help="exchange two classes of one source on purpose: is it noticed? (may be given several times)",
    )

    sub = command("train", _train, "train a network")
    sub.add_argument("network", choices=("emonet", "easynet", "facenet"))
    sub.add_argument("--name", help="of the run (default: <network>-seed<seed>)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--sources", nargs="+", metavar="NAME", help="train on these data sets only")
    sub.add_argument(
        "--validate-on", nargs="+", metavar="NAME", help="choose the epoch on these (default: as --sources)"
    )
    sub.add_argument("--epochs", type=int)
    sub.add_argument("--lr", type=float)
    sub.add_argument("--batch-size", type=int)
    sub.add_argument("--optimizer", choices=("sgd", "adam"))
    sub.add_argument("--schedule", choices=("onecycle", "cosine", "constant"))
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change the recipe, e.g. clip=1 or augment.degrees=5",
    )
    sub.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change the network, e.g. dropout=0.2",
    )
    sub.add_argument(
        "--teachers", nargs="+", metavar="RUN", help="learn from the mean answer of finished runs as well"
    )
    sub.add_argument(
        "--labels",
        choices=("own", "ferplus", "both"),
        default="own",
        help="learn from the sources' own labels, from the votes of FER+ where there are some, or from "
        "the labels and, as a second question, the votes",
    )
    sub.add_argument(
        "--share",
        type=float,
        help="weight of the votes (1 if not said), or else of the teachers' answer (0.7)",
    )
    sub.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    sub.add_argument("--no-progress", action="store_true", help="no progress bar")
    sub.add_argument("--accelerator", default="auto", help="cpu, gpu, … (Lightning)")
    sub.add_argument("--devices", default="auto", help="how many, or which (Lightning)")
    sub.add_argument("--num-nodes", type=int, default=1, help="machines (Lightning)")
    sub.add_argument("--strategy", default="auto", help="ddp, fsdp, … (Lightning)")
    sub.add_argument("--precision", help="32-true, 16-mixed, bf16-mixed, … (Lightning)")

    sub = command("calibrate", _calibrate, "fit scale and biases of a run's last layer on validation")
    sub.add_argument("name", help="of a finished run, e.g. facenet-seed0")

    sub = command("command", _command, "print the command that makes a run again, by its results file")
    sub.add_argument("name", help="of the run, e.g. search/easynet/48")

    sub = command("evaluate", _evaluate, "score a run and write its results file")
    sub.add_argument("name", help="of the run")
    sub.add_argument("--test", action="store_true", help="read the test split too: once, when all is chosen")

    sub = command("compare", _compare, "test whether two evaluated runs differ (McNemar)")
    sub.add_argument("first", help="name of a run")
    sub.add_argument("second", help="name of another")
    sub.add_argument("--split", choices=("validation", "test"), default="test")
    sub.add_argument("--source", default="fer2013", help="whose images")

    sub = command("compare-all", _compare_all, "EasyNet against FaceNet, seed by seed, and their ensembles")
    sub.add_argument("--easynet", nargs="+", metavar="RUN", help="its runs (default: easynet-seed<n>)")
    sub.add_argument("--facenet", nargs="+", metavar="RUN", help="its runs (default: facenet-seed<n>)")
    sub.add_argument("--name", default="networks", help="of the file that is written")
    sub.add_argument("--source", default="fer2013", help="whose images")

    sub = command("depth", _depth, "does depth help? EasyNet with 2, 3, 4 convolutions, and MobileNetV1")
    sub.add_argument("--seeds", nargs="+", type=int, default=[0])
    sub.add_argument("--epochs", type=int, help="of every training (default: those of EasyNet's recipe)")
    sub.add_argument("--precision", help="32-true, bf16-mixed, … (Lightning)")

    sub = command("pretraining", _pretraining, "VGGFace2, ImageNet or a random start? All with one budget")
    sub.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    sub.add_argument("--how", nargs="+", choices=("probe", "head", "all"), default=["probe", "head", "all"],
                     help="one linear layer or the head on a frozen trunk, everything trained")  # fmt: skip
    sub.add_argument("--epochs", type=int, help="of every training (default: those of FaceNet's recipe)")
    sub.add_argument("--size", type=int, default=96, help="side in pixels to which faces are enlarged")
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the recipe")
    sub.add_argument("--precision", help="32-true, bf16-mixed, … (Lightning)")
    sub.add_argument("--test", action="store_true", help="read the test split too: once, when all is chosen")

    sub = command("merging", _merging, "does merging help? FER2013 alone against all sources, same budget")
    sub.add_argument("--network", choices=("emonet", "easynet", "facenet"), default="easynet")
    sub.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    sub.add_argument("--epochs", type=int)
    sub.add_argument("--precision", help="32-true, bf16-mixed, … (Lightning)")

    sub = command("labels", _labels, "compare FER2013's labels with the votes of FER+")
    sub.add_argument(
        "--runs", nargs="+", metavar="RUN", help="evaluated runs: are they nearer to labels or to votes?"
    )

    sub = command("crossfit", _crossfit, "find doubtful labels with networks that have not seen the image")
    sub.add_argument("network", nargs="?", choices=("emonet", "easynet", "facenet"), default="easynet")
    sub.add_argument("--folds", type=int, default=3)
    sub.add_argument(
        "--labels",
        choices=("own", "both"),
        default="own",
        help="learn from the labels, or also, as a second question, from the votes of FER+",
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--name", help="of the run, below crossfit/ (default: <network>-seed<seed>)")
    sub.add_argument("--sources", nargs="+", metavar="NAME", help="only these data sets")
    sub.add_argument("--epochs", type=int)
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the recipe")
    sub.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="change the network")
    sub.add_argument("--precision", help="32-true, bf16-mixed, … (Lightning)")
    sub.add_argument("--resume", action="store_true", help="keep finished folds and go on")

    sub = command("sweep", _sweep, "search FaceNet's settings: SGD against Adam on equal budgets")
    sub.add_argument("--name", default="facenet", help="of the search; the same name again goes on with it")
    sub.add_argument("--trials", type=int, help="of each optimiser (default: 100; drawn faces: 12)")
    sub.add_argument("--seed", type=int, default=0, help="of the draws and of their trainings")
    sub.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a trial's budget: epochs=8"
    )
    sub.add_argument("--precision", help="32-true, bf16-mixed, … (Lightning)")
    sub.add_argument("--storage", metavar="URL", help="a database that several machines reach (Optuna)")
    sub.add_argument("--anew", action="store_true", help="forget an earlier search of this name")
    sub.add_argument(
        "--retrain", action="store_true", help="train a finished search's best again: are they found again?"
    )

    sub = command("publish", _publish, "copy a run's weights into the package and write its model card")
    sub.add_argument("name", help="of the run")
    sub.add_argument("--out", metavar="FOLDER", help="where to (default: fer_utils/weights_data)")

    sub = command("predict", _predict, "classify the largest face of each image")
    sub.add_argument("images", nargs="+", metavar="IMAGE")
    sub.add_argument("--checkpoint", required=True, help="a published name, or a safetensors file")

    sub = command("export", _export, "write the merged faces for other programs")
    sub.add_argument("out", metavar="FOLDER")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
