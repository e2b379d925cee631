//! Limits of this process.
#![allow(unsafe_code)]

use nix::libc;

/// A limit of this process, lowered until it is dropped.
pub(crate) struct Lowered {
    resource: libc::__rlimit_resource_t,
    pub(crate) before: libc::rlimit,
}

impl Lowered {
    pub(crate) fn to(resource: libc::__rlimit_resource_t, value: u64) -> Self {
        let mut before = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: reads and writes one struct each.
        unsafe {
            assert_eq!(libc::getrlimit(resource, &raw mut before), 0);
            let lower = libc::rlimit {
                rlim_cur: value,
                ..before
            };
            assert_eq!(libc::setrlimit(resource, &raw const lower), 0);
        }
        Self { resource, before }
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        // SAFETY: reads one struct.
        let raised = unsafe { libc::setrlimit(self.resource, &raw const self.before) };
        assert_eq!(raised, 0);
    }
}
