"""The single entry point: `python -m ntklens.run`, or `ntklens`."""

import hydra
from omegaconf import DictConfig

from ntklens.command import run_command, run_task
from ntklens.config import find_config_directory


@hydra.main(version_base="1.3", config_path=str(find_config_directory()), config_name="config")
def run(cfg: DictConfig) -> None:
    """Do the task that the configuration names."""
    run_task(cfg)


def main() -> None:
    """Read the command line, and end with an exit status."""
    run_command(run)


if __name__ == "__main__":
    main()
