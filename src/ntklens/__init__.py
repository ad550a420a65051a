"""ntklens: how the neural tangent kernel moves while a network learns, and how that scales."""
