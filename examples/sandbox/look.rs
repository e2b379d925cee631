//! Calls that look at names and attributes. They are performed on what was decided on, and the result is written to the
//! target.

use asm_tracer::emulate::Place;
use asm_tracer::{Errno, Sysno};
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, fstat};
use nix::unistd::{AccessFlags, faccessat};
use std::os::unix::ffi::OsStrExt;

use crate::policy::Use;
use crate::serve::{Served, errno, off_runtime, own_link};

pub(crate) fn serves(sysno: Sysno) -> bool {
    use Sysno::{access, faccessat, faccessat2, lstat, newfstatat, readlink, readlinkat, stat};
    let calls = [
        stat, lstat, newfstatat, access, faccessat, faccessat2, readlink, readlinkat,
    ];
    calls.contains(&sysno)
}

pub(crate) async fn serve(served: &Served<'_>, sysno: Sysno) -> Result<i64, Errno> {
    let [a, b, c, d, ..] = served.call.args();
    let here = libc::AT_FDCWD;
    match sysno {
        Sysno::stat => attributes(served, here, a, b, 0).await,
        Sysno::lstat => attributes(served, here, a, b, libc::AT_SYMLINK_NOFOLLOW).await,
        Sysno::newfstatat => attributes(served, a as i32, b, c, d as i32).await,
        Sysno::access => access(served, here, a, b as i32, 0).await,
        // Its flags are the C library's business.
        Sysno::faccessat => access(served, a as i32, b, c as i32, 0).await,
        Sysno::faccessat2 => access(served, a as i32, b, c as i32, d as i32).await,
        Sysno::readlink => link_text(served, here, a, b, c).await,
        Sysno::readlinkat => link_text(served, a as i32, b, c, d).await,
        _ => Err(Errno::ENOSYS),
    }
}

/// What a path means, if it may be looked at.
pub(crate) async fn decide(served: &Served<'_>, dirfd: i32, path: i64, follow: bool) -> Result<Place, Errno> {
    served.object(dirfd, path, follow, Use::Look).await
}

async fn attributes(served: &Served<'_>, dirfd: i32, path: i64, to: i64, flags: i32) -> Result<i64, Errno> {
    let attributes = match flags & libc::AT_EMPTY_PATH != 0 && is_empty(served, path).await? {
        // As `fstat(2)`, of what the target has open.
        true if dirfd != libc::AT_FDCWD => {
            let fd = served.call.target_fd(dirfd).map_err(errno)?;
            off_runtime(move || fstat(&fd)).await?
        }
        true => return Err(Errno::ENOENT),
        false => {
            let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
            let place = decide(served, dirfd, path, follow).await?;
            off_runtime(move || fstat(place.object().ok_or(Errno::ENOENT)?)).await?
        }
    };
    write(served, to, bytes_of(&attributes)).await
}

async fn is_empty(served: &Served<'_>, path: i64) -> Result<bool, Errno> {
    // A null pointer is an empty path as well, since Linux 6.11.
    if path == 0 {
        return Ok(true);
    }
    let first = served
        .call
        .look(move |target| target.read_value::<u8>(path as u64));
    Ok(first.await.map_err(errno)? == 0)
}

async fn access(served: &Served<'_>, dirfd: i32, path: i64, mode: i32, flags: i32) -> Result<i64, Errno> {
    let mode = AccessFlags::from_bits(mode).ok_or(Errno::EINVAL)?;
    let wanted = match mode {
        mode if mode.contains(AccessFlags::W_OK) => Use::Write,
        mode if mode.contains(AccessFlags::R_OK) => Use::Read,
        _ => Use::Look,
    };
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
    let place = served.object(dirfd, path, follow, wanted).await?;
    let flags = AtFlags::from_bits_truncate(flags) & AtFlags::AT_EACCESS;
    off_runtime(move || {
        let path = own_link(place.object().ok_or(Errno::ENOENT)?);
        faccessat(nix::fcntl::AT_FDCWD, &path, mode, flags)
    })
    .await?;
    Ok(0)
}

async fn link_text(served: &Served<'_>, dirfd: i32, path: i64, to: i64, size: i64) -> Result<i64, Errno> {
    let size = usize::try_from(size as i32).ok().filter(|size| *size > 0);
    let size = size.ok_or(Errno::EINVAL)?;
    let place = decide(served, dirfd, path, false).await?;
    let text = off_runtime(move || {
        let text = readlinkat(place.object().ok_or(Errno::ENOENT)?, c"");
        // The empty path of what is no symlink.
        text.map_err(|errno| {
            if errno == Errno::ENOENT {
                Errno::EINVAL
            } else {
                errno
            }
        })
    });
    let mut text = text.await?.as_bytes().to_vec();
    text.truncate(size);
    let length = text.len() as i64;
    write(served, to, text).await?;
    Ok(length)
}

async fn write(served: &Served<'_>, to: i64, bytes: Vec<u8>) -> Result<i64, Errno> {
    let written = served
        .call
        .look(move |target| target.write_memory(to as u64, &bytes));
    written.await.map_err(errno)?;
    Ok(0)
}

/// `struct stat` as the kernel writes it.
fn bytes_of(stat: &FileStat) -> Vec<u8> {
    let head = [stat.st_dev, stat.st_ino, stat.st_nlink].map(u64::to_ne_bytes);
    let ids = [stat.st_mode, stat.st_uid, stat.st_gid, 0].map(u32::to_ne_bytes);
    let [rdev, rest @ ..] = [
        stat.st_rdev as i64,
        stat.st_size,
        stat.st_blksize,
        stat.st_blocks,
        stat.st_atime,
        stat.st_atime_nsec,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec,
        0,
        0,
        0,
    ]
    .map(i64::to_ne_bytes);
    [head.concat(), ids.concat(), rdev.to_vec(), rest.concat()].concat()
}
