"""How long the tests go on that repeat what is up to chance: a while in `make test`, for as long as it takes to be sure
in `make soak`, which may take an hour.
"""

import os
from typing import TypeVar

T = TypeVar("T")

IS_SOAKING = os.environ.get("ABGATE_TEST_SOAK") == "1"


def briefly(a_while: T, *, soaking: T) -> T:
    """Return how often something is repeated in this run."""
    return soaking if IS_SOAKING else a_while
