"""Pairwise test designs: few cells in which each pair of option values that may occur together occurs.

Most faults need one option or two to show, so that a covering array of strength 2 finds what the full product of all
options finds, in a small share of the time (Kuhn et al. 2004, https://doi.org/10.1109/TSE.2004.24).
"""

from itertools import combinations, product


def is_allowed(cell: dict, forbidden: list[dict]) -> bool:
    """Whether no pattern of `forbidden` matches; a pattern maps options to the values that must not meet."""
    for pattern in forbidden:
        for name, values in pattern.items():  # plain loops: generators take three times as long
            if name not in cell or cell[name] not in values:
                break
        else:
            return False
    return True


def complete(cell: dict, factors: dict[str, list], forbidden: list[dict], rank=lambda cell, name, value: 0):
    """Return an allowed cell with a value for each option that contains `cell`, or None where there is none.

    `rank` says which value of an option to try first: the one for which it is highest.
    """
    patterns = {name: [pattern for pattern in forbidden if name in pattern] for name in factors}

    def extend(cell):
        name = next((name for name in factors if name not in cell), None)
        if name is None:
            return cell
        # A stable order: ties stay in the given order.
        for value in sorted(factors[name], key=lambda value: -rank(cell, name, value)):
            longer = {**cell, name: value}
            found = is_allowed(longer, patterns[name]) and extend(longer)
            if found:
                return found
        return None

    return extend(cell) if is_allowed(cell, forbidden) else None


def pairs_of(cell: dict) -> set:
    """Return the pairs of (option, value) in a cell."""
    return {frozenset(pair) for pair in combinations(cell.items(), 2)}


def pairwise(factors: dict[str, list], forbidden: list[dict]) -> list[dict]:
    """Return cells that contain each allowed pair of values; the same for the same input.

    Greedy, as in AETG (Cohen et al. 1997, https://doi.org/10.1109/32.605761): each cell starts from a pair that is
    still missing, and takes for option after option the value that adds most missing pairs.
    """
    missing = {}  # a dict, which keeps the order
    for one, other in combinations(factors, 2):
        for values in product(factors[one], factors[other]):
            cell = dict(zip((one, other), values, strict=True))
            if complete(cell, factors, forbidden):
                missing[frozenset(cell.items())] = cell

    def n_new_pairs(cell, name, value):
        return sum(frozenset([item, (name, value)]) in missing for item in cell.items())

    cells = []
    while missing:
        cell = complete(next(iter(missing.values())), factors, forbidden, n_new_pairs)
        cell = {name: cell[name] for name in factors}
        cells.append(cell)
        for pair in pairs_of(cell):
            missing.pop(pair, None)
    return cells
