"""From a source ViT to a bundle: adopt an ONNX graph, write the bundle, prove that its numbers survived."""
