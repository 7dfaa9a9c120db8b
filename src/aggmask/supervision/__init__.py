"""What the head should have said, and how far off it was (method.md sections 5 and 6)."""
