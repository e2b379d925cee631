//! The walk along a path.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use nix::errno::Errno;

use super::links::{Follow, Links};
use super::node::{Identity, Node, component};
use super::{Origin, sticky};

/// What the call wants of the walk.
#[derive(Debug, Clone, Copy)]
pub(in crate::emulate) struct Rules {
    /// `RESOLVE_*` of `openat2(2)`.
    pub(in crate::emulate) resolve: u64,
    /// Whether a symlink at the end is followed.
    pub(in crate::emulate) follow: bool,
    /// Whether the last component may be missing.
    pub(in crate::emulate) create: bool,
    /// Whether only a directory will do.
    pub(in crate::emulate) directory: bool,
    /// Whether the object is used, and not only named.
    pub(in crate::emulate) used: bool,
}

impl Rules {
    pub(super) fn has(&self, flag: u64) -> bool {
        self.resolve & flag != 0
    }

    /// Whether the walk must not leave the directory in which it begins.
    pub(super) fn scoped(&self) -> bool {
        self.has(libc::RESOLVE_BENEATH | libc::RESOLVE_IN_ROOT)
    }
}

/// Where a walk ended.
#[derive(Debug)]
pub(in crate::emulate) enum Found {
    /// At something that is there.
    Object {
        node: Arc<Node>,
        /// In which directory and under what name, unless the path ended with dots, the root or a magic link.
        place: Option<(Arc<Node>, OsString)>,
    },
    /// At a name that is free.
    Free { parent: Arc<Node>, name: OsString },
}

struct Walk<'a> {
    origin: &'a Origin,
    rules: Rules,
    root: Arc<Node>,
    /// Whether the kernel would have looked for the root already. It takes an absolute symlink for one that crosses to another
    /// mount unless it has.
    root_known: bool,
    here: Arc<Node>,
    /// The directories between the root and here, where the walk must not leave the root.
    above: Vec<Identity>,
    links: Links,
}

/// Walks along a path, for the thread whose origin it is.
pub(in crate::emulate) fn walk(origin: &Origin, path: &[u8], rules: Rules) -> Result<Found, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let absolute = path[0] == b'/';
    if absolute && rules.has(libc::RESOLVE_BENEATH) {
        return Err(Errno::EXDEV);
    }
    let start = match absolute && !rules.has(libc::RESOLVE_IN_ROOT) {
        true => origin.root(),
        false => origin.base()?,
    };
    let root = match rules.scoped() {
        true => start,
        false => origin.root(),
    };
    let walk = Walk {
        origin,
        rules,
        root: Arc::clone(root),
        root_known: absolute || rules.scoped(),
        here: Arc::clone(start),
        above: Vec::new(),
        links: Links::new(),
    };
    let found = walk.along(path.to_vec())?;
    match &found {
        Found::Object { node, .. } if rules.directory && !node.is_directory() => Err(Errno::ENOTDIR),
        _ => Ok(found),
    }
}

/// A path of which a part is behind.
struct Remaining {
    path: Vec<u8>,
    at: usize,
}

impl Remaining {
    /// The next component; nothing if there are only slashes.
    fn next(&mut self) -> Option<Vec<u8>> {
        let rest = &self.path[self.at..];
        let start = rest.iter().position(|byte| *byte != b'/')?;
        let rest = &rest[start..];
        let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        self.at += start + length;
        Some(rest[..length].to_vec())
    }

    fn rest(&self) -> &[u8] {
        &self.path[self.at..]
    }

    /// Puts a symlink's text before the rest.
    fn follow(&mut self, text: Vec<u8>) {
        self.path = [text.as_slice(), self.rest()].concat();
        self.at = 0;
    }
}

impl Walk<'_> {
    fn along(mut self, path: Vec<u8>) -> Result<Found, Errno> {
        let mut path = Remaining { path, at: 0 };
        while let Some(name) = path.next() {
            if matches!(&*name, b"." | b"..") {
                self.dots(name.len())?;
                continue;
            }
            let last = path.rest().iter().all(|byte| *byte == b'/');
            // A slash at the end asks for a directory.
            let trailing = last && !path.rest().is_empty();
            if trailing && self.rules.create {
                return Err(Errno::EISDIR);
            }
            let node = match self.child(&name, last, trailing) {
                Err(Errno::ENOENT) if last && self.rules.create => {
                    return Ok(Found::Free {
                        parent: self.here,
                        name: OsString::from_vec(name),
                    });
                }
                node => node?,
            };
            if node.is_symlink() && (!last || trailing || self.rules.follow) {
                match self.follow(&node, &name, last)? {
                    Follow::Text(text) => {
                        if text.first() == Some(&b'/') {
                            self.jump_to_root()?;
                        }
                        path.follow(text);
                    }
                    Follow::Jump(node) if path.rest().is_empty() => {
                        return Ok(Found::Object {
                            node: Arc::new(node),
                            place: None,
                        });
                    }
                    Follow::Jump(node) => self.enter(node)?,
                }
            } else if last && !trailing {
                self.check_mount(&node)?;
                return Ok(Found::Object {
                    node: Arc::new(node),
                    place: Some((self.here, OsString::from_vec(name))),
                });
            } else {
                self.enter(node)?;
            }
        }
        Ok(Found::Object {
            node: self.here,
            place: None,
        })
    }

    fn child(&self, name: &[u8], last: bool, trailing: bool) -> Result<Node, Errno> {
        let mounting = !last || trailing || self.rules.used || self.rules.directory;
        self.here.child(&component(name)?, mounting)
    }

    /// Goes to a directory below, or to which a magic link leads.
    fn enter(&mut self, node: Node) -> Result<(), Errno> {
        self.check_mount(&node)?;
        if !node.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        let above = std::mem::replace(&mut self.here, Arc::new(node));
        if self.rules.scoped() {
            self.above.push(above.identity);
        }
        Ok(())
    }

    /// Stays, at one dot, or goes up, at two.
    fn dots(&mut self, dots: usize) -> Result<(), Errno> {
        self.root_known |= dots == 2;
        let at_root = self.here.identity == self.root.identity;
        if dots == 1 || at_root {
            if dots == 2 && self.rules.has(libc::RESOLVE_BENEATH) {
                return Err(Errno::EXDEV);
            }
            // For the right to search it.
            self.here.child(c".", false)?;
            return Ok(());
        }
        let parent = self.here.child(c"..", false)?;
        self.check_mount(&parent)?;
        // Another process may have moved it out of the root meanwhile. The kernel gives up as well then.
        if self.rules.scoped() && self.above.pop() != Some(parent.identity) {
            return Err(Errno::EAGAIN);
        }
        self.here = Arc::new(parent);
        Ok(())
    }

    fn jump_to_root(&mut self) -> Result<(), Errno> {
        if self.rules.has(libc::RESOLVE_BENEATH) {
            return Err(Errno::EXDEV);
        }
        if self.rules.has(libc::RESOLVE_NO_XDEV) && !self.root_known {
            return Err(Errno::EXDEV);
        }
        self.root_known = true;
        self.check_mount(&self.root)?;
        self.above.clear();
        self.here = Arc::clone(&self.root);
        Ok(())
    }

    fn check_mount(&self, next: &Node) -> Result<(), Errno> {
        let crosses = next.identity.mount != self.here.identity.mount;
        match crosses && self.rules.has(libc::RESOLVE_NO_XDEV) {
            true => Err(Errno::EXDEV),
            false => Ok(()),
        }
    }

    fn follow(&mut self, link: &Node, name: &[u8], last: bool) -> Result<Follow, Errno> {
        self.links.count()?;
        if self.rules.has(libc::RESOLVE_NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        if last {
            sticky::check_link(self.origin, &self.here, link)?;
        }
        let followed = Follow::new(self.origin, &self.here, link, &component(name)?)?;
        if let Follow::Jump(node) = &followed {
            if self.rules.has(libc::RESOLVE_NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            if self.rules.scoped() {
                return Err(Errno::EXDEV);
            }
            self.check_mount(node)?;
        }
        Ok(followed)
    }
}
