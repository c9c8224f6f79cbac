"""The plumbing of the platform: people, projects, keys, nodes, devices, processes; knows no run and no deployment.

Nothing is imported here: `r1platform.client` is for programs that have no Django.
"""
