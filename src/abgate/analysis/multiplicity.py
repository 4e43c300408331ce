"""Several tests at once: p-values adjusted for their number, in the order they came."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values of which any below alpha are false with probability alpha at most, whatever their dependence.

    Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6. Of
    always-valid p-values it is always valid too: the first false rejection needs a true null's p below alpha/m.
    """
    # Not by statsmodels, which has the collector walk all there is each time: a tenth of a second.
    adjusted, highest = list(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values of which those below alpha are expected to be false in a share of alpha at most.

    Benjamini & Hochberg 1995, Controlling the false discovery rate, JRSS B 57.
    """
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control(p_values)] if p_values else []
