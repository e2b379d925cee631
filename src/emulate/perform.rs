//! Resolving, performing and answering an open.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;

use super::answer::{self, End, Hurry};
use super::fifo::{self, Wait};
use super::opened::Opened;
use super::place::named;
use super::resolve::{Found, walk};
use super::{Open, Place, errno, opening};
use crate::bound::{Bound, Length};
use crate::notify::{AnswerError, Delivery, Notification};

/// How often a name that was free may be taken before the file was made there.
const ATTEMPTS: u32 = 16;

/// Finding out what it means, opening that, and answering with it.
impl Open {
    /// Finds out what the path means at this moment, and opens nothing.
    ///
    /// # Errors
    ///
    /// The errno with which the call would fail before anything is opened.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing. A thread of the library's may take longer, behind FUSE for example.
    pub async fn resolve(&self) -> Result<Place, Errno> {
        if self.path.len() >= libc::PATH_MAX as usize {
            return Err(Errno::ENAMETOOLONG);
        }
        // The kernel may always say that it does not know the path by heart.
        if self.request.resolve & libc::RESOLVE_CACHED != 0 {
            return Err(Errno::EAGAIN);
        }
        let (origin, path, rules) = (Arc::clone(&self.origin), self.path.clone(), self.request.rules());
        let found = self.off_runtime(move || walk(&origin, &path, rules)).await?;
        Ok(Place {
            found,
            root: Arc::clone(self.origin.root()),
        })
    }

    /// Opens a place that was [resolved](Self::resolve).
    ///
    /// # Errors
    ///
    /// The errno with which the call would fail. `EEXIST`, without `O_EXCL` among the flags, says that the name is not free any
    /// more.
    ///
    /// # Cancel safety
    ///
    /// What was opened meanwhile is closed, but a file that was made or truncated meanwhile stays so.
    pub async fn perform_at(&self, place: Place) -> Result<OwnedFd, Errno> {
        self.open_place(place, &Wait::default()).await.and_then(into_fd)
    }

    async fn open_place(&self, place: Place, wait: &Wait) -> Result<Opened, Errno> {
        let (origin, request) = (Arc::clone(&self.origin), self.request);
        if let Found::Object { node, place } = &place.found
            && fifo::waits(node, request.flags)
        {
            let (checked, place) = (Arc::clone(node), place.clone());
            let check = move || opening::check(&origin, &checked, named(place.as_ref()), &request);
            self.off_runtime(check).await?;
            return fifo::open(&self.bound, Arc::clone(node), request.flags_of_existing(), wait).await;
        }
        let found = place.found;
        self.off_runtime(move || opening::open(&origin, &found, &request))
            .await
    }

    /// Performs the call: what [`resolve`](Self::resolve) finds is opened.
    ///
    /// Closing the descriptor can take as long as its file system likes, which a hostile target may have written (FUSE).
    /// [`answer`](Self::answer) does so on another thread.
    ///
    /// # Errors
    ///
    /// The errno with which the call fails.
    ///
    /// # Cancel safety
    ///
    /// That of [`perform_at`](Self::perform_at).
    pub async fn perform(&self) -> Result<OwnedFd, Errno> {
        self.perform_if(|_| Ok(())).await
    }

    /// The same if `decide` agrees to what is about to be opened. An errno of its own fails the call.
    ///
    /// It is asked again if a name was taken in the moment in which a file was to be made there.
    ///
    /// # Errors
    ///
    /// The errno with which the call fails.
    ///
    /// # Cancel safety
    ///
    /// That of [`perform_at`](Self::perform_at).
    pub async fn perform_if(
        &self,
        decide: impl FnMut(&Place) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        self.open(decide, &Wait::default()).await.and_then(into_fd)
    }

    async fn open(
        &self,
        mut decide: impl FnMut(&Place) -> Result<(), Errno>,
        wait: &Wait,
    ) -> Result<Opened, Errno> {
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            let place = self.resolve().await?;
            decide(&place)?;
            let free = place.object().is_none();
            match self.open_place(place, wait).await {
                Err(Errno::EEXIST) if free && attempts > 0 && !self.request.has(libc::O_EXCL) => {}
                performed => return performed,
            }
        }
    }

    /// Performs the call and hands the descriptor over, or fails the call with the kernel's errno.
    ///
    /// The kernel hands over no descriptor that was made with `O_PATH`. So such a call is let through once it is known what it
    /// means and that it is permitted: the kernel runs it, with the target's rights. See
    /// [the module](super#descriptors-that-stand-for-a-path). If it was [redirected](Self::with_path), the target gets an ordinary
    /// descriptor of a directory, and `EOPNOTSUPP` for anything else.
    ///
    /// A signal to the target ends the wait, as it ends that of a call that the kernel runs: `EINTR`, or the call is made
    /// again where the handler was installed with `SA_RESTART`.
    ///
    /// # Errors
    ///
    /// Those of [`Notification::interrupted`] and [`Notification::respond_with_fd`], except that a target that has no number
    /// left for a descriptor gets `EMFILE`. The notification comes back in the error.
    ///
    /// # Cancel safety
    ///
    /// That of [`perform_at`](Self::perform_at), and the call fails with `ENOSYS`, as a dropped notification does.
    pub async fn answer(self, call: Notification) -> Result<Delivery, AnswerError> {
        self.answer_if(call, |_| Ok(())).await
    }

    /// The same if `decide` agrees; see [`perform_if`](Self::perform_if).
    ///
    /// # Errors
    ///
    /// Those of [`answer`](Self::answer).
    ///
    /// # Cancel safety
    ///
    /// That of [`answer`](Self::answer).
    pub async fn answer_if(
        self,
        call: Notification,
        decide: impl FnMut(&Place) -> Result<(), Errno>,
    ) -> Result<Delivery, AnswerError> {
        if self.request.has(libc::O_PATH) {
            return self.answer_path_only(call, decide).await;
        }
        let install = self.install();
        let wait = Wait::default();
        let opened = self.open(decide, &wait);
        let performed = answer::unless_interrupted(&call, opened, || wait.abandon()).await;
        let bound = self.let_go();
        answer::with_fd(call, &bound, performed, install).await
    }

    /// Answers with a descriptor of this process's, which is closed here before the target goes on.
    ///
    /// For what was [performed](Self::perform) and looked at, or opened in another way. As long as this process had it as well,
    /// the target would notice: what was opened to be written can't be executed, locks stay, a FIFO still has its ends.
    ///
    /// # Errors
    ///
    /// Those of [`Notification::install_fd`], except that a target that has no number left for a descriptor gets `EMFILE`. The
    /// notification comes back in the error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future fails the call with `ENOSYS`; the target may have the descriptor by then.
    ///
    /// # Kernel support
    ///
    /// Without [`KernelSupport::wait_killable`](crate::KernelSupport::wait_killable), a signal could leave the target with a
    /// descriptor that no call has returned; there it is closed right after the target has gone on.
    pub async fn answer_with(&self, call: Notification, fd: OwnedFd) -> Result<Delivery, AnswerError> {
        answer::hand_over(call, &self.bound, Opened::unknown(fd), self.install()).await
    }

    async fn answer_path_only(
        mut self,
        call: Notification,
        mut decide: impl FnMut(&Place) -> Result<(), Errno>,
    ) -> Result<Delivery, AnswerError> {
        let install = self.install();
        if self.redirected {
            self.request.flags &= !(libc::O_PATH | libc::O_NOFOLLOW);
            let directories = |place: &Place| {
                decide(place)?;
                place.is_directory().then_some(()).ok_or(Errno::EOPNOTSUPP)
            };
            let wait = Wait::default();
            let opened = self.open(directories, &wait);
            let opened = answer::unless_interrupted(&call, opened, || wait.abandon()).await;
            let bound = self.let_go();
            return answer::with_fd(call, &bound, opened, install).await;
        }
        let resolved = async { decide(&self.resolve().await?) };
        let end = answer::unless_interrupted(&call, resolved, || Hurry::None).await;
        drop(self);
        match end {
            Ok(End::Done(Ok(()))) => call.continue_syscall(),
            end => answer::with_value(call, end.map(|end| end.map(|done| done.map(|()| 0)))),
        }
    }

    /// Lets go of the target's directories before it goes on, which may want to unmount them.
    fn let_go(self) -> Arc<Bound> {
        self.bound
    }

    async fn off_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        let done = self.bound.run(Length::Short, work).await;
        done.unwrap_or_else(|error| Err(errno(&error)))
    }
}

fn into_fd(opened: Opened) -> Result<OwnedFd, Errno> {
    opened.into_fd().ok_or(Errno::EBADF)
}
