"""Model families behind the ``Forecaster`` port, and the store that keeps them as text and JSON."""
