"""The plumbing of the platform: people, projects, keys, nodes, devices, processes; knows no run and no deployment."""
