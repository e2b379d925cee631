//! Calls from many places, and from one place by many threads.
