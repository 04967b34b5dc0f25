"""Transform, map, place and schedule: from a graph to a verified program."""
