"""The model and all that travels with it: files that import each other and nothing else of the package.

The Hub's remote code copies them into a folder of its own, so that they stay flat among each other.
"""
