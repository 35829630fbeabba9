"""Events become the peaks of a card: its workspaces, its caching allocator, its reserve."""
