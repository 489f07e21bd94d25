"""Videos written without loss."""

import subprocess

import pytest


def write_video(path, frames):
    """Write frames (H, W, 3); skips the test without imageio-ffmpeg."""
    package = pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg")
    height, width = frames[0].shape[:2]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "10"]
    target = ["-c:v", "ffv1", "-pix_fmt", "bgr0", str(path)]
    command = [package.get_ffmpeg_exe(), "-v", "error", "-y", *source, "-i", "-", *target]
    subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)
    return path
