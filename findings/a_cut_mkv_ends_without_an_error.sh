#!/usr/bin/env bash
# PyAV 18.1.0: half of an MKV or WebM file, as an interrupted download leaves it, is read to its end without an error.
#
# Guess: a file that stops in the middle of a packet raises, or its last frame is marked as corrupt; MP4 does raise.
# Seen: decoding ends as at the end of a whole file, no frame is marked, and the length in the header is still the whole:
#   a table of expressions over time stops at 1.4 of 3 s, and nothing says so. Only the last packet's time against the
#   header's length shows it.
# Here: `read_video` compares the two and raises a DataError after the frames that it could give.
#
# Prints length and last frame of whole files and halves. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "av==18.1.0" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > half.py <<'PYTHON'
from pathlib import Path

import av
import numpy as np


def write(name, codec):
    random = np.random.default_rng(0)
    with av.open(name, "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(90):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 255, (64, 64, 3)).astype(np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read(name):
    try:
        with av.open(name) as container:
            frames = [(frame.time, frame.is_corrupt) for frame in container.decode(video=0)]
            corrupt = any(corrupt for _, corrupt in frames)
            length, last = container.duration / av.time_base, frames[-1][0]
    except av.error.FFmpegError as error:
        print(f"{name}: {error.strerror}")
        return None
    print(f"{name}: length {length:.1f} s, last of {len(frames)} frames at {last:.1f} s, corrupt frames: {corrupt}")
    return length - last, corrupt


print(f"PyAV {av.__version__}")
silent = True
for ending, codec in (("mkv", "libx264"), ("webm", "libvpx-vp9"), ("mp4", "libx264")):
    write(f"whole.{ending}", codec)
    whole = Path(f"whole.{ending}").read_bytes()
    Path(f"half.{ending}").write_bytes(whole[: len(whole) // 2])
    complete, half = read(f"whole.{ending}"), read(f"half.{ending}")
    silent &= complete[0] < 0.1 and (half is None if ending == "mp4" else half[0] > 1 and not half[1])
raise SystemExit(not silent)
PYTHON
env/bin/python half.py
