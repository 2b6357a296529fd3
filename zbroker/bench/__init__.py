"""What `zbroker bench` runs: the same roles peer to peer, brokered and durable, beside bare pyzmq and libzmq's own proxy. No click."""
