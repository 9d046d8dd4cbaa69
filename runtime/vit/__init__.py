"""Bundles, and what runs their ViT over a lot."""
