//! One listener: its notifications and their answers.

mod answer;
mod channel;
mod gone;
mod install_fd;
mod interrupted;
mod linger;
mod listener;
mod memory;
mod next;
mod notification;
mod plain;
mod receive;
mod receiver;
mod signals;
mod source;
mod target_fd;
mod timer;
pub(crate) mod uapi;
mod wake;
mod watch;

pub use answer::{AnswerError, Delivery};
pub(crate) use channel::Channel;
pub use gone::Gone;
pub use install_fd::{InstallFd, TargetFd};
pub use interrupted::{Interrupted, Interruption};
pub use listener::Listener;
pub use next::Next;
pub(crate) use notification::FrozenThread;
pub use notification::{Arch, ChildKey, Notification, TrappedSyscall};
pub use plain::Plain;
pub(crate) use receiver::Receiver;
pub(crate) use source::Source;
pub(crate) use wake::WakeControl;
pub use wake::WakeUp;
