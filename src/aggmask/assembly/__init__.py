"""From configurations and checkpoints to objects that work together."""
