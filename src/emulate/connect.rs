use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use syscalls::Sysno;

use super::answer::Hurry;
use super::request::invalid;
use super::resolve::{Base, Found, Origin, Rules, walk};
use super::socket::Socket;
use super::{Address, Place, answer, errno, no_access, sys};
use crate::bound::{Bound, Length};
use crate::error::{Error, Result};
use crate::notify::{AnswerError, Delivery, Notification};

/// The kernel's `struct sockaddr_storage`: the longest address that it takes.
const LONGEST: i32 = 128;
/// A `connect(2)` of a frozen target, to be performed in its place, on its own socket.
///
/// The address was read once, so that it means one thing, whatever other threads of the target do; so does the number of the
/// socket.
///
/// # Security
///
/// See [the module](super#security). Besides, whom a Unix socket is connected to sees *this* process's user and pid in
/// `SO_PEERCRED`, not the target's. A service that trusts by user trusts the target with what it would permit to
/// this process.
///
/// # Examples
///
/// ```
/// use asm_tracer::{Errno, Supervisor, emulate::{Address, Connect}};
///
/// # async fn serve(mut supervisor: Supervisor) -> asm_tracer::Result<()> {
/// while let Some(call) = supervisor.next().await {
///     match Connect::read(&call).await {
///         Ok(Some(connect)) => match connect.address() {
///             Address::V4(address) if address.ip().is_loopback() => connect.answer(call).await?,
///             Address::V4(_) | Address::V6(_) => call.error(Errno::ENETUNREACH)?,
///             _ => call.error(Errno::EACCES)?,
///         },
///         Ok(None) => call.continue_syscall()?,
///         Err(error) => call.error(error.errno().unwrap_or(Errno::EIO))?,
///     };
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "it connects nothing by itself"]
pub struct Connect {
    pub(super) bound: Arc<Bound>,
    origin: Arc<Origin>,
    pub(super) socket: Arc<Socket>,
    address: Address,
    /// What the address came from.
    bytes: Vec<u8>,
    /// Whether the connection has begun, and only its end is waited for.
    pub(super) waiting: AtomicBool,
}

impl Connect {
    /// Reads the call of a frozen target; `None` if it is another one, or of another ABI.
    ///
    /// # Errors
    ///
    /// What the kernel itself would answer is the [`errno`](Error::errno) of the error: [`Error::Fault`] for a bad pointer,
    /// [`Error::BadFd`], [`Error::InvalidCall`] for what is no socket or no length. The others are [`Error::NoAccess`]
    /// without the right to trace the target, [`Error::UnknownPid`], [`Error::Gone`], [`Error::Unsupported`] and
    /// [`Error::Io`]. The call stays answerable.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn read(call: &Notification) -> Result<Option<Self>> {
        if call.sysno() != Some(Sysno::connect) {
            return Ok(None);
        }
        let [number, address, length, ..] = call.args();
        let tid = call.tid().ok_or(Error::UnknownPid)?;
        let socket = Socket::new(call.target_fd(number as i32)?);
        let length = length as i32;
        if !(0..=LONGEST).contains(&length) {
            return Err(invalid(Errno::EINVAL));
        }
        let read = call.look(move |target| {
            let mut bytes = vec![0; length as usize];
            let mut done = 0;
            while done < bytes.len() {
                let at = (address as u64).wrapping_add(done as u64);
                done += target.read_memory(at, &mut bytes[done..])?;
            }
            Ok((bytes, Origin::new(tid, Base::WorkingDirectory)))
        });
        let (bytes, origin) = read.await?;
        if !call.is_pending() {
            return Err(Error::Gone);
        }
        socket.domain().map_err(invalid)?;
        Ok(Some(Self {
            bound: call.bound(),
            origin: Arc::new(origin.map_err(no_access)?),
            socket: Arc::new(socket),
            address: Address::of(&bytes),
            bytes,
            waiting: AtomicBool::new(false),
        }))
    }

    /// Where the target wants to be connected to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The same call with another address. A path means what it would mean if the target had written it, except that it may
    /// have any length.
    ///
    /// # Examples
    ///
    /// ```
    /// # use asm_tracer::{AnswerError, Delivery, Notification, emulate::Connect};
    /// # async fn redirect(connect: Connect, call: Notification) -> Result<Delivery, AnswerError> {
    /// let here: std::net::SocketAddr = ([127, 0, 0, 1], 8080).into();
    /// connect.with_address(here).answer(call).await
    /// # }
    /// ```
    pub fn with_address(mut self, address: impl Into<Address>) -> Self {
        self.address = address.into();
        self.bytes = self.address.to_bytes();
        self
    }

    /// Finds out which socket a [path](Address::UnixPath) means at this moment; `None` for another address.
    ///
    /// # Errors
    ///
    /// The errno with which the call would fail.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn resolve(&self) -> Result<Option<Place>, Errno> {
        let Address::UnixPath(path) = &self.address else {
            return Ok(None);
        };
        // The kernel doesn't look at a path for a socket of another kind.
        if self.socket.domain()? != libc::AF_UNIX {
            return Ok(None);
        }
        let (origin, path) = (Arc::clone(&self.origin), path.clone());
        let found = self.off_runtime(move || find(&origin, &path)).await?;
        Ok(Some(Place {
            found,
            root: Arc::clone(self.origin.root()),
        }))
    }

    /// Performs the call.
    ///
    /// The target's socket is connected, since this process has a descriptor of the same. If calls on it wait, it is made
    /// non-blocking for the moment in which the connection begins, which other threads of the target that use it in this
    /// very moment can notice; then this waits, as long as the kernel would, without a thread.
    ///
    /// # Errors
    ///
    /// The errno with which the call fails.
    ///
    /// # Cancel safety
    ///
    /// A connection that has begun goes on by itself, as it does after a signal.
    pub async fn perform(&self) -> Result<(), Errno> {
        self.perform_if(|_| Ok(())).await
    }

    /// The same if `decide` agrees to the place to which a path leads. Its errno fails the call. Other addresses can't change
    /// their meaning: it is asked with `None`.
    ///
    /// # Errors
    ///
    /// The errno with which the call fails.
    ///
    /// # Cancel safety
    ///
    /// That of [`perform`](Self::perform).
    pub async fn perform_if(
        &self,
        decide: impl FnOnce(Option<&Place>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let place = self.resolve().await?;
        decide(place.as_ref())?;
        let bytes = match place.as_ref().and_then(Place::object) {
            Some(object) => [
                (libc::AF_UNIX as u16).to_ne_bytes().as_slice(),
                sys::own_link(object).as_bytes(),
            ]
            .concat(),
            None => self.bytes.clone(),
        };
        self.connect(Arc::new(bytes)).await
    }

    /// Performs the call and answers it with what came of it.
    ///
    /// A signal to the target ends the wait, as `connect(2)` says: the connection goes on by itself.
    ///
    /// # Errors
    ///
    /// Those of [`Notification::interrupted`]. The notification comes back in the error.
    ///
    /// # Cancel safety
    ///
    /// That of [`perform`](Self::perform), and the call fails with `ENOSYS`, as a dropped notification does.
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
        decide: impl FnOnce(Option<&Place>) -> Result<(), Errno>,
    ) -> Result<Delivery, AnswerError> {
        let performed = async { self.perform_if(decide).await.map(|()| 0) };
        let hurry = || match self.waiting.load(Ordering::Relaxed) {
            true => Hurry::Drop,
            false => Hurry::None,
        };
        let end = answer::unless_interrupted(&call, performed, hurry).await;
        // Before the target goes on, which would notice that this process has its socket and its directories.
        drop(self.origin);
        Socket::close(self.socket, &self.bound).await;
        answer::with_value(call, end)
    }

    pub(super) async fn off_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        let done = self.bound.run(Length::Short, work).await;
        done.unwrap_or_else(|error| Err(errno(&error)))
    }
}

fn find(origin: &Origin, path: &Path) -> Result<Found, Errno> {
    let path = path.as_os_str().as_bytes();
    if path.len() >= libc::PATH_MAX as usize {
        return Err(Errno::ENAMETOOLONG);
    }
    let rules = Rules {
        resolve: 0,
        follow: true,
        create: false,
        directory: false,
        used: false,
    };
    walk(origin, path, rules)
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("tid", &self.origin.tid())
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
