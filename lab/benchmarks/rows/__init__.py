"""What is compared between builds: `catalogue.py` lists it, the other files compute it in either build.

To add a row, write a function `compute(inputs, **options)` in a file here, which sets everything up and returns the
function without arguments that is measured, and add an entry to `CASES` in `catalogue.py`. It runs in builds of other
commits, too: of the package such a file imports public names at its top, and others by `of_build` where they are used;
what only this build has, inside the functions that only this build runs.
"""
