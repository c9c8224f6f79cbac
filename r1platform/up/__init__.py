"""`./r1 up`: the whole platform on one machine. `children` keeps one process running, `stack` all of them in order."""
