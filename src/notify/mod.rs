//! One listener: its notifications and their answers.

mod answer;
mod channel;
mod install_fd;
mod linger;
mod listener;
mod memory;
mod next;
mod notification;
mod plain;
mod receive;
mod receiver;
mod source;
mod target_fd;
pub(crate) mod uapi;
mod wake;

pub use answer::{AnswerError, Delivery};
pub(crate) use channel::Channel;
pub use install_fd::{InstallFd, TargetFd};
pub use listener::Listener;
pub use next::Next;
pub(crate) use notification::FrozenThread;
pub use notification::{Arch, ChildKey, Notification, TrappedSyscall};
pub use plain::Plain;
pub(crate) use receiver::Receiver;
pub(crate) use source::Source;
pub(crate) use wake::WakeControl;
pub use wake::WakeUp;
