"""Commands that make figures and reports from training runs."""
