"""From events to numbers, and from numbers to a verdict."""
