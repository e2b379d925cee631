//! What kernels before 6.11 do without: an end of RECV at the end of the filter (T4).
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

const OLDER: &str = "ASM_TRACER_TEST_OLDER_KERNEL";

/// The version is the only thing that tells, so all the other tests are run where it is 2.6.
#[test]
fn all_of_this_holds_on_an_older_kernel() {
    if std::env::var_os(OLDER).is_some() {
        let release = nix::sys::utsname::uname().unwrap();
        assert!(release.release().to_str().unwrap().starts_with("2.6."));
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(OLDER, "1");
    // SAFETY: one system call, which is all that happens between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::personality(libc::UNAME26 as libc::c_ulong) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("all_of_this_holds_on_an_older_kernel ... ok"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
