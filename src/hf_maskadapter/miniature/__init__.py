"""The miniature: a small trained checkpoint of the whole method, for a drawn world."""
