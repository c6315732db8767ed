"""The published variants as data, one file per family; ``registry`` collects them."""
