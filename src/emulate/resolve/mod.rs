//! From a path of the target to the object that it means, in the way of `path_resolution(7)`.
//!
//! The kernel would resolve a path for this process, not for the target: from another root, with another `/proc/self`.
//! And what it resolves once it may resolve to something else the next time. So each component is opened here on its own, by
//! a descriptor that stays the object's, and symlinks are followed by hand.

mod links;
mod node;
mod origin;
mod own_process;
mod sticky;
mod walk;

pub(super) use node::Node;
pub(super) use origin::{Base, Origin};
pub(super) use own_process::is_withheld;
pub(super) use sticky::check_existing;
pub(super) use walk::{Found, Rules, walk};
