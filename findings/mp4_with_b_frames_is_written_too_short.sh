#!/usr/bin/env bash
# PyAV 18.1.0, H.264 in MP4: a video written at an uneven rate with B-frames says that it ends before its last frame.
#
# Guess: the length that the file notes is at least the time of the last frame, whatever the codec's options.
# Seen: with frames that look ahead (B-frames), which x264 uses unless told otherwise, packets come in another order than
#   they are shown, and the length is made of the last packet's decoding time: with a frame each half second at the end,
#   15.5 s become 14.6. Players end there; who divides frames by length gets a wrong rate. MKV, and MP4 with `bf=0`,
#   note 15.5 s.
# Here: annotated videos, whose frames keep their uneven times, are written with `bf=0`.
#
# Prints lengths and the time of the last frame. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "av==18.1.0" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > length.py <<'PYTHON'
from fractions import Fraction

import av
import numpy as np

TIMES = [*np.arange(30) / 30, *(1 + np.arange(30) / 2)]


def write_and_read(name, options):
    random = np.random.default_rng(0)
    with av.open(name, "w") as container:
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        for seconds in TIMES:
            frame = av.VideoFrame.from_ndarray(random.integers(0, 255, (64, 64, 3)).astype(np.uint8))
            frame.pts, frame.time_base = round(seconds * 90_000), Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(name) as container:
        length, last = container.duration / av.time_base, max(f.time for f in container.decode(video=0))
    print(f"{name}, {options or 'default options'}: length {length:.2f} s, last frame at {last:.2f} s")
    return length - last


print(f"PyAV {av.__version__}")
default = write_and_read("default.mp4", {})
without = write_and_read("without.mp4", {"bf": "0"})
mkv = write_and_read("default.mkv", {})
raise SystemExit(not (default < -0.5 and without > 0 and mkv > 0))
PYTHON
env/bin/python length.py
