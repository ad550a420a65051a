"""What a command does: each task wires rooms together."""
