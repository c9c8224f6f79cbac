"""Training: datasets, pipelines, runs. Reading is in `selectors`, doing in `services`, owning a process in `supervisor`."""
