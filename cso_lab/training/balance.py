"""Whether KTO's two kinds of rows weigh about the same (Ethayarajh et al., 2024, eq. 8, whose bounds TRL recommends too)."""

LOWEST, HIGHEST = 1.0, 4 / 3


def balance_warning(desirable: int, undesirable: int, desirable_weight: float, undesirable_weight: float) -> str | None:
    """What to say when (desirable rows x weight) / (undesirable rows x weight) lies outside the recommended range; None within it."""
    if not desirable or not undesirable:
        return f"KTO: {desirable} desirable and {undesirable} undesirable rows: one kind is missing"
    ratio = desirable * desirable_weight / (undesirable * undesirable_weight)
    if round(LOWEST, 2) <= round(ratio, 2) <= round(HIGHEST, 2):
        return None
    rows = undesirable / desirable
    up = [bound * rows * undesirable_weight for bound in (LOWEST, HIGHEST)]
    down = [desirable_weight / rows / bound for bound in (HIGHEST, LOWEST)]
    return (
        f"KTO: {desirable} desirable rows x {desirable_weight} against {undesirable} undesirable x {undesirable_weight} is"
        f" {ratio:.2f} to 1, where {LOWEST:.0f} to {HIGHEST:.2f} is recommended: algorithm.desirable_weight from {up[0]:.2f} to"
        f" {up[1]:.2f} would give it, or algorithm.undesirable_weight from {down[0]:.2f} to {down[1]:.2f}"
    )
