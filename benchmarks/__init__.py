"""One file a figure; `./r1 bench NAME` runs one and writes `benchmarks/results/NAME.json`."""
