"""Raw text as people have it: which files a source is (files), how they are cut into blocks (blocks), and what
documents are in a block (records)."""
