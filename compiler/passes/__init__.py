"""Graph to graph: one file a pass, each a function from Graph to Graph."""
