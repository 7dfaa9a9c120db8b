"""From the representations around a cell to the mask of its object (method.md section 4)."""
