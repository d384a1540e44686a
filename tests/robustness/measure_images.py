"""What reading hostile and large pictures takes, each in a process of its own.

python -m tests.robustness.measure_images
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from service.errors import InvalidImage
from service.pictures.images import FORMATS, ImageReader
from service.settings import Settings
from tests.robustness.bombs import READ, REFUSED, WELCOME, saved


def measured(file: bytes) -> tuple[float, float, str]:
    """Milliseconds, 10^6 bytes of memory above what was in use, and the outcome, of reading a file in a new process."""
    command = [sys.executable, "-m", "tests.robustness.measure_images", "one"]
    done = subprocess.run(command, input=file, capture_output=True, timeout=60, check=True)
    milliseconds, megabytes, outcome = done.stdout.decode().split(" ", 2)
    return float(milliseconds), float(megabytes), outcome.strip()


def main() -> None:
    """Print the table."""
    files = [(id, name, make) for id, name, make, _ in REFUSED] + [*READ, *WELCOME]
    print(f"{'':3} {'file':40} {'bytes':>9} {'ms':>7} {'MB':>6}  outcome")
    for id, name, make in files:
        file = make()
        milliseconds, megabytes, outcome = measured(file)
        print(f"{id:3} {name:40} {len(file):9d} {milliseconds:7.1f} {megabytes:6.1f}  {outcome[:60]}", flush=True)


def _one(file: bytes) -> None:
    reader = ImageReader(Settings().max_image_bytes, Settings().max_image_pixels)
    # Loads what the formats need, which is not the file's doing.
    for format in FORMATS:
        reader.read(saved(Image.radial_gradient("L").resize((300, 300)), format))
    base = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    # Has the kernel forget the highest value so far.
    Path("/proc/self/clear_refs").write_text("5")
    began = time.perf_counter()
    try:
        reader.read(file)
        outcome = "read"
    except InvalidImage as error:
        outcome = str(error)
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
    print(f"{seconds * 1e3:.3f} {max(peak - base, 0) / 1e6:.3f} {outcome}")


if __name__ == "__main__":
    if sys.argv[1:] == ["one"]:
        _one(sys.stdin.buffer.read())
    else:
        main()
