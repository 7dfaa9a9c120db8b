"""Sweeps: one parent that freezes each job's configuration, and a fresh process for each job."""
