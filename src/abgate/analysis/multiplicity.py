"""Several tests at once: p-values adjusted for their number, in the order they came."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values of which any below alpha are false with probability alpha at most, whatever their dependence.

    Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6. Of
    always-valid p-values it is always valid too: the first false rejection needs a true null's p below alpha/m.
    """
    return _adjusted(p_values, "holm")


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values of which those below alpha are expected to be false in a share of alpha at most.

    Benjamini & Hochberg 1995, Controlling the false discovery rate, JRSS B 57.
    """
    return _adjusted(p_values, "fdr_bh")


def _adjusted(p_values: Sequence[float], method: str) -> list[float]:
    # One alone needs no adjustment, and so no import of a second's length.
    if len(p_values) < 2:
        return list(p_values)
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method=method)[1]]
