"""Whether the device that was asked for is there."""

import os
import platform
import subprocess
import sys

from ntklens.errors import Unavailable

PROBE = "import jax; jax.local_devices()"
PROBE_SECONDS = 120.0


def check_device() -> None:
    """Refuse to compute where JAX does not find what JAX_PLATFORMS, or a SLURM job's GPUs, ask for.

    Raises:
        Unavailable: naming what to set.
    """
    import jax

    asked = os.environ.get("JAX_PLATFORMS", "")
    try:
        backend = jax.local_devices()[0].platform
    except (RuntimeError, AssertionError) as error:
        raise Unavailable(_describe(asked, str(error))) from error
    gpus = os.environ.get("SLURM_GPUS_PER_TASK", "") if "SLURM_JOB_ID" in os.environ else ""
    if backend == "cpu" and gpus not in ("", "0") and not asked:
        raise Unavailable(
            f"hydra.launcher.gpus={gpus}: JAX finds no GPU on {platform.node()}; install JAX for CUDA "
            "(requirements-cuda12.lock), exclude that node, or type JAX_PLATFORMS=cpu before the line to compute on "
            "processors"
        )


def check_device_apart() -> None:
    """Refuse the same in a process of its own: the planning process must not hold a device that jobs compute on.

    Raises:
        Unavailable: naming what to set.
    """
    asked = os.environ.get("JAX_PLATFORMS", "")
    if not asked or "cpu" in asked.split(","):
        return
    try:
        answer = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:  # a device that takes its time is there
        return
    if answer.returncode:
        last = next(
            (line for line in reversed(answer.stderr.splitlines()) if line.startswith(("Runtime", "Asser"))), ""
        )
        raise Unavailable(_describe(asked, last.partition(": ")[2]))


def _describe(asked: str, reason: str) -> str:
    reason = " ".join(reason.partition("(set JAX_PLATFORMS")[0].split())[:200]
    details = f" ({reason.rstrip('.')})" if reason else ""
    return (
        f"JAX_PLATFORMS={asked}: JAX finds no such device on {platform.node()}{details}; type JAX_PLATFORMS=cpu before "
        "the line to compute on processors, or unset it to take what is there"
    )
