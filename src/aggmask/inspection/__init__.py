"""How a model comes to each object of a picture: candidates and their fates, neighbors, shares; a page, a figure."""
