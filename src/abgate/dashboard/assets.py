"""What pages load beside their HTML: styles, scripts, and the vendored libraries."""

import hashlib
from pathlib import Path

STATIC = Path(__file__).parent / "static"


_files = sorted(path for path in STATIC.rglob("*") if path.is_file())
_digest = hashlib.sha256(b"".join(path.read_bytes() for path in _files)).hexdigest()[:12]

FILES = frozenset(path.relative_to(STATIC).as_posix() for path in _files)
"""The paths of all that there is, below `PATH`."""
PATH = f"/assets/{_digest}"
"""Another path with each change of a file, so that browsers may keep what they have for as long as they like."""
LIFE_S = 365 * 24 * 60 * 60
