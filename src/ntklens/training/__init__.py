"""Ensembles of seeds, trained in one compiled program."""
