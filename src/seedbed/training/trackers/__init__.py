"""Where a run's numbers go beside its own files: one file a tool, each imported only when it is asked for."""
