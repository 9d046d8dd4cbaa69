"""Make a bundle of a source ViT, and prove that its numbers survived."""
