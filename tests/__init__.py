"""`test_<module>.py` mirrors the tree; `strategies.py` is the only place that builds random model values."""
