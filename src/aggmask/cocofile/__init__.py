"""The COCO annotation format: what is read, what is refused, and why."""
