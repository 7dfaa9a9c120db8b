"""Pictures of instances: masks and labels over the image, side by side, on contact sheets."""
