"""From the head's outputs to objects (method.md section 7)."""
