#!/usr/bin/env bash
# imageio-ffmpeg 0.8.1: a video of 40 frames at an uneven rate, as phones record, is read as 58, and its times are wrong.
#
# Guess: `read_frames` gives the frames that are in the file; frame k stands at k / fps of its meta data.
# Seen: FFmpeg fills the gaps to the stream's base rate: with 30 frames in the first second and 10 in the next, frames of
#   the second half come three times. `count_frames_and_secs` says 40, and fps is the mean rate, 20.7: frame k / fps puts
#   the last frame at 2.75 s of a video of 1.93 s. PyAV gives 40 frames with times.
# Here: videos are read with PyAV, by each frame's own time.
#
# Prints counts and times. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "imageio-ffmpeg==0.8.1" "av==18.1.0" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > uneven.py <<'PYTHON'
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np

times = [*np.arange(30) / 30, *(1 + np.arange(10) / 10)]
with av.open("uneven.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"bf": "0", "crf": "1"})
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    stream.codec_context.time_base = Fraction(1, 90_000)
    for number, seconds in enumerate(times):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 + 5 * number, np.uint8), format="rgb24")
        frame.pts, frame.time_base = round(seconds * 90_000), Fraction(1, 90_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())

reader = imageio_ffmpeg.read_frames("uneven.mp4")
meta = next(reader)
shown = [round((np.frombuffer(frame, np.uint8).mean() - 20) / 5) for frame in reader]
counted, _ = imageio_ffmpeg.count_frames_and_secs("uneven.mp4")
last = (len(shown) - 1) / meta["fps"]
with av.open("uneven.mp4") as container:
    own = [frame.time for frame in container.decode(video=0)]
print(f"imageio-ffmpeg {imageio_ffmpeg.__version__}: counts {counted} frames, gives {len(shown)} of {len(set(shown))}")
print(f"it says {meta['fps']} frames/s and {meta['duration']} s; k / fps puts the last frame at {last:.2f} s")
print(f"PyAV {av.__version__}: {len(own)} frames, the last at {own[-1]:.2f} s")
filled = len(shown) > 50 and set(shown) == set(range(40)) and counted == 40 and last > 1.25 * meta["duration"]
raise SystemExit(not (filled and len(own) == 40 and abs(own[-1] - times[-1]) < 1e-3))
PYTHON
env/bin/python uneven.py
