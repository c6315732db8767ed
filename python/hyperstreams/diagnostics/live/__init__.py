"""Looking into a model while it runs: hooks, traces, captures, the probe of a training run, and the
named quantities of what they saw."""
