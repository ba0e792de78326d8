"""Object code to results."""
