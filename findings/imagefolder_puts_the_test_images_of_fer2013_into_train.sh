#!/usr/bin/env bash
# Hugging Face datasets 5.2.0: FER2013 as folders, by its official names of splits, becomes one split "train".
#
# Guess: `load_dataset("imagefolder")` makes a split of each folder at the top, or refuses names that it does not know.
# Seen: it looks for words such as "test" only where a separator stands around them. In `PublicTest` and `FER2013Test`
#   there is none, so all folders go into "train" without a warning: who trains on "train" trains on the test images.
#   With `train`, `validation` and `test`, and with AffectNet's `train_set` and `val_set`, splits are as one would guess.
# Here: `FaceSet.export_folder` names its folders train, validation and test, and FER2013's are read by our own reader.
#
# Prints the splits of four layouts with six drawn images a folder. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "datasets==5.2.0" "pillow==13.0.0" 2> pip.log || { cat pip.log; exit 2; }
cat > splits.py <<'PYTHON'
import os
from pathlib import Path

os.environ["HF_HOME"] = str(Path("cache").resolve())
import datasets
from PIL import Image

datasets.disable_progress_bars()
LAYOUTS = {
    "as in the CSV": ("Training", "PublicTest", "PrivateTest"),
    "as in FER+": ("FER2013Train", "FER2013Valid", "FER2013Test"),
    "repacks": ("train", "validation", "test"),
    "AffectNet": ("train_set", "val_set"),
}


def splits(name, folders):
    for place in folders:
        for emotion in ("angry", "happy"):
            (folder := Path(name, place, emotion)).mkdir(parents=True)
            for number in range(3):
                Image.new("L", (48, 48), 20 * number).save(folder / f"{number}.png")
    return {split: rows.num_rows for split, rows in datasets.load_dataset("imagefolder", data_dir=name).items()}


print(f"datasets {datasets.__version__}")
seen = {name: splits(name, folders) for name, folders in LAYOUTS.items()}
for name, found in seen.items():
    print(f"{name} ({', '.join(LAYOUTS[name])}): {found}")
merged = seen["as in the CSV"] == seen["as in FER+"] == {"train": 18}
right = seen["repacks"] == {"train": 6, "validation": 6, "test": 6} and len(seen["AffectNet"]) == 2
raise SystemExit(not (merged and right))
PYTHON
env/bin/python splits.py
