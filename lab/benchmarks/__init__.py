"""Measurements behind the numbers in the README, each printed as a Markdown table by ``scripts/benchmark.py``."""
