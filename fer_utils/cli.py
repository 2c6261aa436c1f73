"""The command line: `fer data | merge | train | evaluate | predict | export | demo`."""

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from fer_utils import cli_predict

# Torch and Lightning take seconds to import, so each command imports what it needs.


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, or 1 after an error that is printed without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal's encoding may lack letters of a path
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)  # settings may follow an option, too
    if options.command != "train" or any(word.startswith("-") for word in rest):
        parser.parse_args(arguments)
    options.words = [*getattr(options, "words", ()), *rest]
    try:
        code = options.run(options) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ModuleNotFoundError, ValueError, OSError) as error:
        hint = '; run `pip install "fer-utils[train]"`' if isinstance(error, ModuleNotFoundError) else ""
        print(f"fer {options.command}: {' '.join(str(error).split())}{hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fer {options.command}: stopped", file=sys.stderr)
        return 130


def _data(options: argparse.Namespace) -> int:
    from fer_utils.datasets.fer2013 import fetch
    from fer_utils.datasets.inventory import inventory

    root = _workspace(options).data
    if options.fetch:
        fetch(root)
    text, damaged = inventory(root)
    print(text)
    return int(damaged)


def _demo(options: argparse.Namespace) -> None:
    faces = _workspace(options).faces(again=options.again)
    print(f"{len(faces):,} drawn faces are merged in {faces.path}")


def _merge(options: argparse.Namespace) -> None:
    from fer_utils.datasets import read_sources
    from fer_utils.datasets.merge import merge
    from fer_utils.files import write_json

    space = _workspace(options)
    out = options.out or space.faceset
    sources = read_sources(space.data, options.sources or None)
    faces = merge(sources, out, disgust=options.disgust, seed=options.seed)
    if out == space.faceset and options.profile == "full":  # what the book prints about the merged set
        write_json(space.results / "data" / "merged.json", faces.manifest)
    print(faces.counts().to_string())
    print(f"\n{len(faces):,} faces are merged in {out}; `manifest.json` there lists what was dropped and why")


def _train(options: argparse.Namespace) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    from fer_utils.experiment import read_result, settings_of, train

    space, words = _workspace(options), list(options.words)
    network = words.pop(0) if words and "=" not in words[0] else None
    settings, name = {}, options.name
    if options.like:
        path = Path(options.like)
        result = read_result(path if path.suffix == ".json" else space.results / f"{options.like}.json")
        settings, name = settings_of(result), name or result.name
        if network not in (None, result.model["name"]):
            raise ValueError(f"{result.name} is of {result.model['name']}, not of {network}")
        network = result.model["name"]
    if network is None:
        raise ValueError("name a network, emonet, easynet or facenet, or a run to train --like")
    settings |= dict(_setting(word) for word in words)
    run = train(space, network, name=name, resume=options.resume, **settings)
    if rank_zero_only.rank > 0:
        return
    name = run.folder.relative_to(space.runs).as_posix()
    print(f"best on validation: epoch {int(run.best['epoch'])}, accuracy {run.best['val_accuracy']:.1%}")
    print(f"`fer evaluate {name}` writes its results file")


def _setting(word: str) -> tuple[str, Any]:
    """Name and value of ``name=value``: JSON, a list with commas, or else a string."""
    name, separator, text = word.partition("=")
    if not separator:
        raise ValueError(f"{word!r} is not of the form name=value")
    value: Any = text.split(",") if "," in text else text
    for json_text in (f"[{text}]" if "," in text else text, text):
        with suppress(ValueError):
            value = json.loads(json_text)
    return name, [value] if name in ("sources", "teachers") and isinstance(value, str) else value


def _evaluate(options: argparse.Namespace) -> None:
    from fer_utils.experiment import evaluate

    space = _workspace(options)
    result = evaluate(space, options.name, test=options.test)
    for split in ("validation", "test"):
        for variant, scores in getattr(result, split).items():
            low, high = scores["accuracy_interval"]
            accuracy = f"accuracy {scores['accuracy']:.2%}  95% interval {low:.2%} to {high:.2%}"
            print(f"{split:10s}  {variant:24s} {scores['images']:6d} images  {accuracy}")
    for source in result.protocol["other_splits"]:
        why = "; ".join(result.protocol["notes"].get(source, []))
        print(f"{source} must not be compared with published scores: {why}")
    print(f"written to {space.results / options.name}.json")


def _export(options: argparse.Namespace) -> None:
    faces = _workspace(options).faces()
    if options.what == "faces":
        faces.export_folder(options.out)
        print(f"{len(faces):,} faces are exported to {options.out}")
        return
    from fer_utils.export import export_network
    from fer_utils.weights import load_model

    options.out.mkdir(parents=True, exist_ok=True)
    for network in options.network or ("easynet", "easynet-small", "facenet"):
        model, path = load_model(network), options.out / f"{Path(network).stem}.onnx"
        print(f"{path}: calibrated on validation, temperature {export_network(model, faces, path):.3f}")


def _workspace(options: argparse.Namespace) -> Any:
    from fer_utils.experiment import workspace

    return workspace(options.profile)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fer", description="Read, merge, train, evaluate and predict.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run, profile="demo")
        if name not in ("demo", "predict"):
            sub.add_argument("--profile", choices=("demo", "full"), default="full", help="faces: drawn, real")
        return sub

    sub = command("data", _data, "show which data sets are below FER_DATA, and where to get the rest")
    sub.add_argument("--fetch", action="store_true", help="first fetch FER2013 with your Kaggle credentials")
    sub = command("merge", _merge, "merge the data sets to six classes of 64×64 grey faces")
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: build/<profile>/faceset)")
    sub.add_argument("--sources", nargs="+", metavar="NAME", help="only these data sets")
    sub.add_argument("--disgust", choices=("drop", "angry"), default="drop", help="leave out, or angry")
    sub.add_argument("--seed", type=int, default=0, help="of the split by subject")
    sub = command("train", _train, "train a network: emonet, easynet or facenet")
    sub.add_argument("words", nargs="*", metavar="NETWORK SETTING=VALUE", help="e.g. easynet seed=1 epochs=6")
    sub.add_argument("--like", metavar="RUN|FILE", help="with all settings of a results file")
    sub.add_argument("--name", help="of the run (default: <network>-seed<seed>, or as the one it is like)")
    sub.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    sub = command("evaluate", _evaluate, "score a run and write its results file")
    sub.add_argument("name", help="of the run")
    sub.add_argument("--test", action="store_true", help="read the test split too: once, when all is chosen")
    cli_predict.add_arguments(
        command("predict", cli_predict.run, "find and classify the faces of pictures and videos")
    )
    sub = command("export", _export, "write merged faces as folders, or networks as ONNX for `fer predict`")
    sub.add_argument("what", choices=("faces", "onnx"))
    sub.add_argument("out", type=Path, metavar="FOLDER")
    sub.add_argument(
        "--network", nargs="+", metavar="NAME|FILE", help="published, or a run's model.safetensors"
    )
    sub = command("demo", _demo, "draw the demo faces and merge them")
    sub.add_argument("--again", action="store_true", help="even if they are there already")
    return parser
