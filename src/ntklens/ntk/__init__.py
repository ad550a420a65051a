"""The neural tangent kernel of a network: the kernel itself, its spectrum and the numbers drawn from it."""
