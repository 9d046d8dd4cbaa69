"""``musc-edge selftest``: whether what this machine computes is right, and how fast, in one file to send."""
