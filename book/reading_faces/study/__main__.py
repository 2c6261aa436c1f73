"""List the experiments: `make study`, or `python -m reading_faces.study`."""

import ast
from pathlib import Path

# What each writes below book/results, and how long it took on two cores.
EXPERIMENTS = {
    "checks": ("checks/emonet-checks.json", "20 minutes"),
    "merging": ("comparisons/merging.json", "3 hours, with CK+ and JAFFE"),
    "depth": ("comparisons/depth.json", "an hour"),
    "pretraining": ("comparisons/pretraining.json", "90 minutes"),
    "caching": ("benchmarks/caching.json", "an hour"),
    "sweep": ("sweeps/facenet.json", "half an hour"),
    "compare": ("comparisons/networks.json, votes.json", "seconds"),
    "claims": ("comparisons/claims.json", "seconds"),
    "agreement": ("labels/agreement.json, networks.json", "seconds"),
    "crossfit": ("labels/issues.json", "20 to 40 minutes"),
    "inspection": ("inspection/RUN.json", "6 to 10 minutes a network"),
    "smoothing": ("video/smoothing.json", "ten minutes, on drawn faces"),
    "gpu": ("runs, for `fer evaluate`", "a quarter of an hour of a data-centre GPU"),
    "audit": ("nothing: tests groups that you bring", "seconds"),
    "bench": ("benchmarks/photos.json, crops.json", "half an hour, and ten minutes to install the others"),
    "repeat": ("checks/repeated.json", "seconds, after hours of training"),
    "exported": ("checks/exported.json", "minutes"),
    "fuzz": ("reliability/fuzz.json", "an hour, on drawn faces"),
    "growth": ("benchmarks/growth.json", "ten minutes, on drawn faces, and 10 GB of disk for a while"),
    "kills": ("reliability/kills.json", "half an hour, after `make book`"),
    "speed": ("benchmarks/speed.json, throughput.json, steps.json, augmentation.json, …", "minutes"),
}


def main() -> None:
    """Print one line an experiment: its question, its file, its time."""
    print("python -m reading_faces.study.NAME runs an experiment on the merged set of FER_DATA.\n")
    for name, (writes, takes) in EXPERIMENTS.items():
        code = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        question = (
            (ast.get_docstring(ast.parse(code)) or "").splitlines()[0].split("`python")[0].rstrip(".: ")
        )
        print(f"{name:12s} {question}\n{'':12s} writes {writes}; takes {takes}\n")


if __name__ == "__main__":
    main()
