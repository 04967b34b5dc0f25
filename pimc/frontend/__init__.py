"""The frontend: from an ONNX file to an integer reference model and the Graph of the passes."""
