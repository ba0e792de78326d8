"""From a planned graph to kernel calls: the registry of lowerings by primitive name and the lowerings."""
