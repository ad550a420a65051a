"""What is recorded of a run, and when."""
