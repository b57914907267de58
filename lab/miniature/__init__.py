"""Building and measuring the miniature."""
