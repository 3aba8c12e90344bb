"""Reading clips: this project against zamba, torchcodec and a plain PyAV loop, on the same files, one after the other.

    python tests/benchmarks/decode.py --zamba ~/zamba-env/bin/python --torchcodec ~/torchcodec-env/bin/python --clips DIR

The peers live in environments of their own: ``pip install 'zamba[video]==2.7.2'`` (and the system's ffmpeg) and
``pip install torch torchcodec``. Without an option, that peer is left out. Each reader runs in a process of its own
and reads everything three times; the fastest counts. Memory is the peak above what the process had after its imports, with
ffmpeg's processes where there are any.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEIGHT, WIDTH, FRAMES, FPS = 240, 426, 32, 8
READERS = ("zamba_lcli", "zamba", "torchcodec", "plain PyAV")


def reader(name, strategy):
    """Returns a function from a path to 32 frames, evenly spaced or the first ones at 8 a second."""
    if name == "zamba_lcli":
        from zamba_lcli.data import EvenlySpaced, FixedRate
        from zamba_lcli.data.video.reading import read_clip

        sampling = EvenlySpaced(FRAMES) if strategy == "even" else FixedRate(FPS, FRAMES)
        return lambda path: read_clip(Path(path), sampling, height=HEIGHT, width=WIDTH).frames
    if name == "zamba":
        from zamba.data.video import load_video_frames

        chosen = {"evenly_sample_total_frames": True} if strategy == "even" else {"fps": FPS}
        size = {"model_input_height": HEIGHT, "model_input_width": WIDTH}
        return lambda path: load_video_frames(path, total_frames=FRAMES, **chosen, **size)
    if name == "torchcodec":
        import numpy as np
        from torch.nn.functional import interpolate
        from torchcodec.decoders import VideoDecoder

        def read(path):
            decoder = VideoDecoder(path, num_ffmpeg_threads=1)
            end = decoder.metadata.end_stream_seconds
            times = np.linspace(0, end - 0.05, FRAMES) if strategy == "even" else np.arange(FRAMES) / FPS
            frames = decoder.get_frames_played_at(np.minimum(times, end - 0.05).tolist()).data
            small = [
                interpolate(frame[None].float(), (HEIGHT, WIDTH), mode="bilinear", antialias=True) for frame in frames
            ]
            return [frame.byte().numpy() for frame in small]

        return read
    import av
    import numpy as np

    def decode_all(path):
        with av.open(path) as container:
            container.streams.video[0].codec_context.thread_count = 1
            frames, times = [], []
            for frame in container.decode(video=0):
                frames.append(frame.to_ndarray(format="rgb24"))
                times.append(frame.time)
                if strategy != "even" and len(frames) > 1 and times[-1] - times[0] > FRAMES / FPS:
                    break
        positions = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
        picked = [av.VideoFrame.from_ndarray(frames[i], format="rgb24") for i in positions]
        return [frame.reformat(WIDTH, HEIGHT, interpolation="AREA").to_ndarray() for frame in picked]

    return decode_all


def measure(name, strategy, repeat, paths):
    """Prints the time and memory that one reader takes for the paths, as JSON."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    read = reader(name, strategy)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children_before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # forked by imports
    rounds = []
    for _ in range(repeat):
        seconds, failed = 0.0, []
        for path in paths:
            start = time.perf_counter()
            try:
                assert len(read(path)) == FRAMES
            except Exception as error:  # a peer may raise whatever it likes
                failed.append(f"{Path(path).name}: {type(error).__name__}")
            seconds += time.perf_counter() - start
        rounds.append(seconds)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    children = children if children > children_before else 0
    print(json.dumps({"seconds": min(rounds), "MB": (own + children) / 1024, "failed": failed}))


def make_clips(folder):
    """Renders 60 s of 1080p H.264 with a key frame each second and 30 s of 720p MJPEG: noise that moves over a gradient."""
    import av
    import numpy as np

    def write(path, codec, pix_fmt, size, seconds, **options):
        if path.exists():
            return
        width, height = size
        rng = np.random.default_rng(0)
        texture = rng.integers(60, 160, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        with av.open(str(path), "w") as file:
            stream = file.add_stream(codec, rate=30, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.bit_rate = 8_000_000 if codec == "libx264" else 40_000_000
            for number in range(30 * seconds):
                picture = texture.copy()
                left = number * 5 % (width - 200)
                picture[200:400, left : left + 200] = rng.integers(0, 255, (200, 200, 1), dtype=np.uint8)
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    file.mux(packet)
            for packet in stream.encode(None):
                file.mux(packet)

    write(folder / "h264_1080p_60s.mp4", "libx264", "yuv420p", (1920, 1080), 60, g="30", preset="veryfast")
    write(folder / "mjpeg_720p_30s.avi", "mjpeg", "yuvj422p", (1280, 720), 30)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zamba", help="python of an environment with zamba")
    parser.add_argument("--torchcodec", help="python of an environment with torchcodec")
    parser.add_argument("--clips", help="a folder of clips to read too")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the rendered clips are kept")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("READER", "STRATEGY"), help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure, args.repeat, args.paths)
        return
    folder = Path(args.folder)
    make_clips(folder)
    h264, mjpeg = str(folder / "h264_1080p_60s.mp4"), str(folder / "mjpeg_720p_30s.avi")
    cases = [("H.264 1080p 60 s, evenly", "even", [h264]), ("H.264 1080p 60 s, 8 fps, first 32", "first", [h264])]
    cases += [("MJPEG 720p 30 s, evenly", "even", [mjpeg])]
    if args.clips:
        clips = sorted(str(p.absolute()) for p in Path(args.clips).iterdir() if p.suffix.lower() in (".mp4", ".avi"))
        cases.append((f"{len(clips)} clips of {args.clips}, evenly", "even", clips))
    pythons = {"zamba_lcli": sys.executable, "plain PyAV": sys.executable}
    pythons |= {name: value for name, value in (("zamba", args.zamba), ("torchcodec", args.torchcodec)) if value}
    print(
        f"{os.cpu_count()} cores; {FRAMES} frames to {HEIGHT}x{WIDTH}; seconds, peak MB above imports, times as long as here\n"
    )
    print("| files, frames |", " | ".join(name for name in READERS if name in pythons), "|")
    print("|---|" + "---|" * len(pythons))
    for title, strategy, paths in cases:
        cells, ours = [], 0.0
        for name in READERS:
            if name not in pythons:
                continue
            command = [pythons[name], __file__, "--repeat", str(args.repeat), "--measure", name, strategy, *paths]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
            if done.returncode:
                sys.exit(done.stderr)
            best = json.loads(done.stdout.splitlines()[-1])
            ours = ours or best["seconds"]
            failed = f", failed: {'; '.join(best['failed'])}" if best["failed"] else ""
            cells.append(f"{best['seconds']:.2f} s, {best['MB']:.0f} MB, {best['seconds'] / ours:.1f} x{failed}")
        print(f"| {title} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
