"""What made the project's numbers, models and cards: not part of the package, and not imported by it."""
