//! Calls that change what there is. They are performed here, on the very directories and objects that were decided on.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use asm_tracer::emulate::Place;
use asm_tracer::{Errno, Sysno};
use nix::fcntl::{AT_FDCWD, AtFlags, RenameFlags, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, truncate, unlinkat};

use crate::policy::Use;
use crate::serve::{Served, errno, off_runtime, own_link};

pub(crate) async fn serve(served: &Served<'_>, sysno: Sysno) -> Result<i64, Errno> {
    let [a, b, c, d, e, _] = served.call.args();
    let here = libc::AT_FDCWD;
    let (no_follow, directory) = (libc::AT_SYMLINK_NOFOLLOW, libc::AT_REMOVEDIR);
    match sysno {
        Sysno::mkdir => make_directory(served, here, a, b as u32).await,
        Sysno::mkdirat => make_directory(served, a as i32, b, c as u32).await,
        Sysno::mknod => make_node(served, here, a, b as u32).await,
        Sysno::mknodat => make_node(served, a as i32, b, c as u32).await,
        Sysno::symlink => make_symlink(served, a, here, b).await,
        Sysno::symlinkat => make_symlink(served, a, b as i32, c).await,
        Sysno::link => make_link(served, (here, a), (here, b), 0).await,
        Sysno::linkat => make_link(served, (a as i32, b), (c as i32, d), e as i32).await,
        Sysno::unlink => remove(served, here, a, 0).await,
        Sysno::rmdir => remove(served, here, a, directory).await,
        Sysno::unlinkat => remove(served, a as i32, b, c as i32).await,
        Sysno::rename => rename(served, (here, a), (here, b), 0).await,
        Sysno::renameat => rename(served, (a as i32, b), (c as i32, d), 0).await,
        Sysno::renameat2 => rename(served, (a as i32, b), (c as i32, d), e as u32).await,
        Sysno::chmod => mode(of_path(served, here, a, 0).await?, b).await,
        Sysno::fchmodat => mode(of_path(served, a as i32, b, 0).await?, c).await,
        Sysno::fchmod => mode(of_descriptor(served, a as i32).await?, b).await,
        Sysno::chown => owner(of_path(served, here, a, 0).await?, b, c).await,
        Sysno::lchown => owner(of_path(served, here, a, no_follow).await?, b, c).await,
        Sysno::fchown => owner(of_descriptor(served, a as i32).await?, b, c).await,
        Sysno::fchownat => owner(of_path(served, a as i32, b, e as i32).await?, c, d).await,
        Sysno::truncate => length(of_path(served, here, a, 0).await?, b).await,
        Sysno::utimensat => times(served, a as i32, b, c, d as i32).await,
        _ => Err(Errno::ENOSYS),
    }
}

async fn make_directory(served: &Served<'_>, dirfd: i32, path: i64, mode: u32) -> Result<i64, Errno> {
    let name = served.name(dirfd, path).await?;
    let mode = permitted(served, mode)?;
    off_runtime(move || {
        let (directory, name) = name.parts()?;
        mkdirat(directory, &*name, mode).map(|()| 0)
    })
    .await
}

async fn make_node(served: &Served<'_>, dirfd: i32, path: i64, mode: u32) -> Result<i64, Errno> {
    let kind = match SFlag::from_bits_truncate(mode & libc::S_IFMT) {
        kind if kind.is_empty() => SFlag::S_IFREG,
        kind if [SFlag::S_IFREG, SFlag::S_IFIFO, SFlag::S_IFSOCK].contains(&kind) => kind,
        _ => return Err(Errno::EPERM),
    };
    let name = served.name(dirfd, path).await?;
    let mode = permitted(served, mode)?;
    off_runtime(move || {
        let (directory, name) = name.parts()?;
        mknodat(directory, &*name, kind, mode, 0).map(|()| 0)
    })
    .await
}

async fn make_symlink(served: &Served<'_>, text: i64, dirfd: i32, path: i64) -> Result<i64, Errno> {
    let text = served.call.look(move |target| target.read_path(text as u64));
    let text = text.await.map_err(errno)?;
    let name = served.name(dirfd, path).await?;
    // It may say anything: whoever follows it is decided on then.
    off_runtime(move || {
        let (directory, name) = name.parts()?;
        symlinkat(&text, directory, &*name).map(|()| 0)
    })
    .await
}

async fn make_link(served: &Served<'_>, from: (i32, i64), to: (i32, i64), flags: i32) -> Result<i64, Errno> {
    if flags != 0 {
        return Err(Errno::EPERM);
    }
    // Its new place must give no more access than the old one: the name in both can be changed.
    let (from, to) = (served.name(from.0, from.1).await?, served.name(to.0, to.1).await?);
    off_runtime(move || {
        let ((from, old), (to, new)) = (from.parts()?, to.parts()?);
        linkat(from, &*old, to, &*new, AtFlags::empty()).map(|()| 0)
    })
    .await
}

async fn remove(served: &Served<'_>, dirfd: i32, path: i64, flags: i32) -> Result<i64, Errno> {
    let flags = match flags {
        0 => UnlinkatFlags::NoRemoveDir,
        libc::AT_REMOVEDIR => UnlinkatFlags::RemoveDir,
        _ => return Err(Errno::EINVAL),
    };
    let name = served.name(dirfd, path).await?;
    served.sandbox.policy.check_movable(&name.path)?;
    off_runtime(move || {
        let (directory, name) = name.parts()?;
        unlinkat(directory, &*name, flags).map(|()| 0)
    })
    .await
}

async fn rename(served: &Served<'_>, from: (i32, i64), to: (i32, i64), flags: u32) -> Result<i64, Errno> {
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if flags.contains(RenameFlags::RENAME_WHITEOUT) {
        return Err(Errno::EPERM);
    }
    let (from, to) = (served.name(from.0, from.1).await?, served.name(to.0, to.1).await?);
    // What has these names in the end may be another object, but never one that a rule speaks of: those can't be moved.
    served.sandbox.policy.check_movable(&from.path)?;
    served.sandbox.policy.check_movable(&to.path)?;
    off_runtime(move || {
        let ((from, old), (to, new)) = (from.parts()?, to.parts()?);
        renameat2(from, &*old, to, &*new, flags).map(|()| 0)
    })
    .await
}

/// What a call changes the attributes of.
enum Object {
    Found(Place),
    /// What the target has open. It need not have been opened to be written.
    Open(OwnedFd),
}

impl Object {
    fn link(&self) -> Result<PathBuf, Errno> {
        Ok(match self {
            Self::Found(place) => own_link(place.object().ok_or(Errno::ENOENT)?),
            Self::Open(fd) => own_link(fd),
        })
    }
}

async fn of_path(served: &Served<'_>, dirfd: i32, path: i64, flags: i32) -> Result<Object, Errno> {
    if flags & !libc::AT_SYMLINK_NOFOLLOW != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags == 0;
    let place = served.object(dirfd, path, follow, Use::Write).await?;
    Ok(Object::Found(place))
}

async fn of_descriptor(served: &Served<'_>, number: i32) -> Result<Object, Errno> {
    let fd = served.call.target_fd(number).map_err(errno)?;
    let decided = match std::fs::read_link(own_link(&fd)) {
        Ok(path) => served.decide(&path, Use::Write),
        Err(_) => Err(Errno::EACCES),
    };
    match decided {
        Ok(()) => Ok(Object::Open(fd)),
        Err(errno) => {
            // It is the target's file, and closing it can take as long as that likes.
            off_runtime(move || {
                drop(fd);
                Err(errno)
            })
            .await
        }
    }
}

async fn mode(object: Object, mode: i64) -> Result<i64, Errno> {
    let mode = Mode::from_bits_truncate(mode as u32);
    // By way of the link, which leads to the object itself and not to what has its name by now.
    off_runtime(move || fchmodat(AT_FDCWD, &object.link()?, mode, FchmodatFlags::FollowSymlink).map(|()| 0))
        .await
}

async fn owner(object: Object, user: i64, group: i64) -> Result<i64, Errno> {
    // −1 leaves it as it is.
    let id = |register: i64| Some(register as u32).filter(|id| *id != u32::MAX);
    let (user, group) = (id(user).map(Uid::from_raw), id(group).map(Gid::from_raw));
    off_runtime(move || match &object {
        // A symlink that was not followed can only be reached so.
        Object::Found(place) => {
            let object = place.object().ok_or(Errno::ENOENT)?;
            fchownat(object, c"", user, group, AtFlags::AT_EMPTY_PATH).map(|()| 0)
        }
        Object::Open(fd) => nix::unistd::fchown(fd, user, group).map(|()| 0),
    })
    .await
}

async fn length(object: Object, length: i64) -> Result<i64, Errno> {
    off_runtime(move || truncate(&object.link()?, length).map(|()| 0)).await
}

async fn times(served: &Served<'_>, dirfd: i32, path: i64, times: i64, flags: i32) -> Result<i64, Errno> {
    let now = TimeSpec::new(0, libc::UTIME_NOW);
    let [accessed, modified] = match times {
        0 => [now, now],
        address => {
            let read = served.call.look(move |target| target.read_value(address as u64));
            let times: [[i64; 2]; 2] = read.await.map_err(errno)?;
            times.map(|[seconds, nanoseconds]| TimeSpec::new(seconds, nanoseconds))
        }
    };
    let object = match path {
        0 => of_descriptor(served, dirfd).await?,
        path => of_path(served, dirfd, path, flags).await?,
    };
    let follow = UtimensatFlags::FollowSymlink;
    off_runtime(move || utimensat(AT_FDCWD, &object.link()?, &accessed, &modified, follow).map(|()| 0)).await
}

/// The permissions that the target's umask leaves. This process has none of its own.
fn permitted(served: &Served<'_>, mode: u32) -> Result<Mode, Errno> {
    let tid = served.call.tid().ok_or(Errno::EACCES)?;
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).map_err(|_| Errno::EACCES)?;
    if !served.call.is_pending() {
        return Err(Errno::EINTR);
    }
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok());
    Ok(Mode::from_bits_truncate(
        mode & 0o7777 & !umask.ok_or(Errno::EACCES)?,
    ))
}
