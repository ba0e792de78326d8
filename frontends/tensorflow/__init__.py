"""TensorFlow's GraphDefs and SavedModels, read without TensorFlow."""
