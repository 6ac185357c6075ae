"""From predictions to numbers: Q, Q_W, B and R-L (section 5.1 of the paper), with per-strategy values and intervals."""
