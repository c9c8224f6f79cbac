"""What both apps stand on: transitions, processes, file tails, live messages, leases, storage, embedded servers."""
