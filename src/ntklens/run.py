"""The single entry point: `python -m ntklens.run`, or `ntklens`."""

import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from ntklens._compat import leave_out_triton
from ntklens.cli import run_command, run_task
from ntklens.config.schemas import find_config_directory


@hydra.main(version_base="1.3", config_path=str(find_config_directory()), config_name="config")
def run(cfg: DictConfig) -> None:
    """Do the task that the configuration names."""
    run_task(cfg)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line, do what it says, and return the exit status; callable again and again.

    Args:
      argv: the words after the command's name; by default those of this process.

    Returns:
      The exit status.
    """
    leave_out_triton()
    return run_command(run, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
