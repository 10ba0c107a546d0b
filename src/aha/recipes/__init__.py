"""Complete configurations and the wiring of stages: the only place where concrete parts meet."""
