"""A machine of its own on this one: network, mounts, processes and Open vSwitch of one run (or one test) apart."""
