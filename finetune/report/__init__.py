"""The page at the end of a run: ``report.html``, written by ``train`` and ``evaluate`` from plain data."""
