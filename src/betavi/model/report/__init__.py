"""The trust report: one page that says whether a model can be used, and for what."""
