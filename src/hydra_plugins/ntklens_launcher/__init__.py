"""ntklens's launchers, found by Hydra through its plugin namespace."""
