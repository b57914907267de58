"""The service: pictures and labels in over HTTP, masks with labels out. Needs the extra `serve`.

A request goes through `middleware.py` (key, access log, faults), `endpoints.py`, `reading.py` (body and picture, within
`limits.py`), `vocabularies.py`, `batching.py` (the queue before the model's one thread), and `results.py`.
"""
