"""The documentation site's pages that are made from the code, and the example notebooks."""
