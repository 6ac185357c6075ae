"""Whether desirable and undesirable rows have about the same weight in KTO (Ethayarajh et al., 2024, eq. 8; TRL recommends the same)."""

LOWEST, HIGHEST = 1.0, 4 / 3


def balance_warning(desirable: int, undesirable: int, desirable_weight: float, undesirable_weight: float) -> str | None:
    """Returns a warning if (desirable rows x weight) / (undesirable rows x weight) is outside LOWEST to HIGHEST, else None.

    The warning names the range of either weight that would bring the ratio within the bounds.
    """
    if not desirable or not undesirable:
        return f"KTO: {desirable} desirable and {undesirable} undesirable rows: one kind is missing"
    ratio = desirable * desirable_weight / (undesirable * undesirable_weight)
    if round(LOWEST, 2) <= round(ratio, 2) <= round(HIGHEST, 2):
        return None
    rows = undesirable / desirable
    desirable_range = [bound * rows * undesirable_weight for bound in (LOWEST, HIGHEST)]
    undesirable_range = [desirable_weight / rows / bound for bound in (HIGHEST, LOWEST)]
    return (
        f"KTO: {desirable} desirable rows x {desirable_weight} against {undesirable} undesirable x {undesirable_weight} is"
        f" {ratio:.2f} to 1, where {LOWEST:.0f} to {HIGHEST:.2f} is recommended: algorithm.desirable_weight from"
        f" {desirable_range[0]:.2f} to {desirable_range[1]:.2f} would give it, or algorithm.undesirable_weight from"
        f" {undesirable_range[0]:.2f} to {undesirable_range[1]:.2f}"
    )
