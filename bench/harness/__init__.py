"""What the benchmarks share: real servers, a client that costs little, and a report with a last line for programs."""
