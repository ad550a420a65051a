"""An optimizer of one's own: a function of `learning_rate` that returns an optax transformation."""

import optax


def clipped_sgd(learning_rate: float, max_norm: float = 1.0) -> optax.GradientTransformation:
    """Return gradient descent whose gradient has at most this norm."""
    return optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(learning_rate))
