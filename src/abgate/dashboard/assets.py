"""What pages load beside their HTML: styles, scripts, and the vendored libraries."""

import hashlib
from pathlib import Path

STATIC = Path(__file__).parent / "static"


def _digest() -> str:
    files = sorted(path for path in STATIC.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


PATH = f"/assets/{_digest()}"
"""Another path with each change of a file, so that browsers may keep what they have for as long as they like."""
LIFE_S = 365 * 24 * 60 * 60
