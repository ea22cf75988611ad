"""What is made of rounds: medians and ranges, and the lines of tables."""

import statistics


def middle(rounds, name):
    """The median of one figure; none if it was not measured."""
    values = [figures[name] for figures in rounds or () if figures[name] is not None]
    return statistics.median(values) if values else None


def spread(rounds, name, form):
    values = [figures[name] for figures in rounds if figures[name] is not None]
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.median(values):{form}} [{min(values):{form}}–{max(values):{form}}]"


def beside(rounds, base, name):
    """What is measured beside something else, as a ratio: the median over the rounds, as what disturbs the machine meets
    the two of one round alike. A peer that has failed has the first rounds only. None if either was not measured."""
    ratios = [value / other for value, other in pairs(rounds, base, name) if other]
    return statistics.median(ratios) if ratios else None


def above(rounds, base, name):
    """As `beside`, as a difference."""
    differences = [value - other for value, other in pairs(rounds, base, name)]
    return statistics.median(differences) if differences else None


def pairs(rounds, base, name):
    both = [(figures[name], other[name]) for figures, other in zip(rounds or (), base or ())]
    return [pair for pair in both if None not in pair]


def plain(value, form=".2f"):
    return "–" if value is None else f"{value:{form}}"


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
