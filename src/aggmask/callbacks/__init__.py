"""What hangs on the training loop: pictures, results, messages."""
