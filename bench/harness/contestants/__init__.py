"""The libraries that `bench/assign.py` compares, each behind the same three functions."""

from harness.contestants import abgate, eppo, growthbook, launchdarkly, statsig

ALL = (
    abgate.contestants,
    eppo.contestants,
    growthbook.contestants,
    launchdarkly.contestants,
    statsig.contestants,
)
"""Each makes a library's contestants; the first is abgate."""
