"""What is wrong with a data set, what this method makes of it, and what would suit it better."""
