//! An edge as a process: sockets, links to all routers, and no store.
