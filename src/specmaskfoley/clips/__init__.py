"""Where clips come from (`listing.py`), and which of them can be used (`inspection.py`)."""
