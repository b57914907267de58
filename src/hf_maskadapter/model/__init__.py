"""The model and all that travels with it: files that import each other and nothing else of the package.

The Hub's remote code copies them into a folder of its own, so that they stay flat among each other. What is in them
gives and takes tensors, arrays and bytes. Pictures and vocabularies may also come as paths or addresses, since that is
where their users have them; caches, hashes, versions and results in files belong to the rooms above.
"""
