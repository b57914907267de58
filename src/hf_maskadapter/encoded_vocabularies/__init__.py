"""Encoded vocabularies in files: those that users save, and a cache of names encoded before."""
