"""Where a result came from: versions, commit, device."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import jax

PACKAGES = ("ntklens", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "xarray")


def describe_environment() -> dict[str, object]:
    """Return a trajectory's attributes `packages`, `python`, `git_commit`, `git_dirty`, `device`, `host`."""
    device = jax.local_devices()[0]
    commit = _ask_git("rev-parse", "HEAD")
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "git_commit": commit or "",
        "git_dirty": bool(commit and _ask_git("status", "--porcelain", "--untracked-files=no")),
        "device": f"{device.platform}: {device.device_kind}",
        "host": platform.node(),
    }


def _ask_git(*words: str) -> str:
    """Return what git says of the checkout that this package was installed from; nothing for an installed wheel."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
