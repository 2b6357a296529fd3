"""The deterministic simulation: production engines, clients and store over a virtual disk, network and clock, by seed."""
