"""The cases, one module for each kind; each has ``cases()``."""
