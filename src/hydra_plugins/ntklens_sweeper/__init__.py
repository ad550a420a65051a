"""ntklens's sweeper, found by Hydra through its plugin namespace."""
