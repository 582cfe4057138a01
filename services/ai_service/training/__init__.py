"""Makes models from history: labels, purged walk-forward validation, calibration, and the worker process."""
