"""Where things are: cells on grids, pixels in frames."""
