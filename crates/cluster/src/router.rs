//! A router as a process: homes of the shards that it leads, and their way to edges and other routers.
