"""One thumbnail: ``thumbnail_worker.py SIZE MAX_BYTES <picture >png``, run by `runner.files.thumbnails`."""

from __future__ import annotations

import io
import os
import resource
import sys

UNSUPPORTED, NO_PILLOW = 3, 4
MAX_PIXELS = 50_000_000
_MEMORY = 1024**3
_CPU_SECONDS = 8


def main() -> int:
    """Read the picture, write the thumbnail; return the exit code."""
    size, most = int(sys.argv[1]), int(sys.argv[2])
    sys.path += os.environ.get("OQTO_PACKAGES", "").split(os.pathsep)
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return NO_PILLOW
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        picture = Image.open(sys.stdin.buffer)
        if picture.width * picture.height > MAX_PIXELS:
            return UNSUPPORTED
        picture.draft("RGB", (size, size))  # a JPEG need not be unpacked at its full size
        turned = ImageOps.exif_transpose(picture)
        turned.thumbnail((size, size))
        small = turned.convert("RGBA" if "A" in turned.getbands() or "transparency" in turned.info else "RGB")
        result = io.BytesIO()
        small.save(result, "PNG")
    except Exception:
        return UNSUPPORTED
    if result.tell() > most:
        return UNSUPPORTED
    sys.stdout.buffer.write(result.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
