"""What is sent to Weights & Biases."""
