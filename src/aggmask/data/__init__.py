"""From annotation files and image bytes to training batches in the network frame."""
