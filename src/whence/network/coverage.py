"""Which parameters of a module have factored per-example gradients, in words."""

from __future__ import annotations

from collections.abc import Collection

from whence.network.module import FunctionalModule

_NAMED = 3  # kinds of modules without a rule that are named


def coverage(module: FunctionalModule, factored: Collection[str], mapped: bool) -> str:
    """Return how many parameters a module has, which of them have no rule, and what that costs.

    Args:
        module: The module as a function of its selected parameters.
        factored: The selected parameters whose per-example gradients factor.
        mapped: Whether the others are differentiated by a pass that is mapped over examples.

    Returns:
        One sentence or three.
    """
    sizes = {name: shape.numel() for name, shape in module.shapes.items()}
    total = sum(sizes.values())
    rest = {name: size for name, size in sizes.items() if name not in factored}
    if not rest:
        return f"{total:,} parameters, all with factored per-example gradients."
    kinds: dict[str, tuple[str, int]] = {}
    unnamed = dict(rest)  # a tied parameter has several owners, the first of which counts
    for owner, held in module.owners.items():
        for _, name in held:
            if name in unnamed:
                first, size = kinds.get(type(owner).__name__, (name, 0))
                kinds[type(owner).__name__] = first, size + unnamed.pop(name)
    several = sorted(kinds.items(), key=lambda kind: -kind[1][1])
    named = ", ".join(
        f"{kind} ({100 * size / total:.3g} %, such as {first})"
        for kind, (first, size) in several[:_NAMED]
    )
    more = f" and {len(several) - _NAMED} more kinds" if len(several) > _NAMED else ""
    count = sum(rest.values())
    how = "one example at a time: a forward and a backward pass for each,"
    if mapped:
        how = "for all examples of a batch at once, by torch.func.vmap: a pass of their own,"
    return (
        f"{total:,} parameters; {count:,} of them ({100 * count / total:.3g} %) are in modules "
        f"without a rule for per-example gradients: {named}{more}. They are differentiated {how} "
        f"and rows of {count:,} numbers per example. EKFAC and KFAC take their exact diagonal. "
        "Leave them out with params= if that is too slow."
    )
