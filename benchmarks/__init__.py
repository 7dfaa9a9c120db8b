"""What things cost, measured. Each file is a command: `python -m benchmarks.<name>`."""
