"""Gossip between the terminals of a distributed K-AS: each comes to know what the others said of themselves."""
