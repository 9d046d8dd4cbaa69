"""Bundles, and the backends that run their ViT over a lot."""
