//! What happens when a socket has ended, whatever ended it.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU16, Ordering},
};

use parking_lot::Mutex;

type Then = Box<dyn FnOnce(u16) + Send>;

/// Says goodbye when it is dropped: with the socket, or with a handshake that came to nothing.
pub(crate) struct Farewell {
    code: AtomicU16,
    then: Mutex<Option<Then>>,
}

impl Farewell {
    pub(crate) fn new(then: impl FnOnce(u16) + Send + 'static) -> Self {
        Self { code: AtomicU16::new(0), then: Mutex::new(Some(Box::new(then))) }
    }

    /// Nothing is to be said.
    pub(crate) fn forget(&self) {
        self.then.lock().take();
    }

    /// The socket has ended with this code.
    pub(crate) fn end(&self, code: u16) {
        self.code.store(code, Ordering::Relaxed);
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let Some(then) = self.then.get_mut().take() else { return };
        let code = self.code.load(Ordering::Relaxed);
        // It is the user's, and may be dropped in the midst of what others wait for.
        if catch_unwind(AssertUnwindSafe(|| then(code))).is_err() {
            tracing::error!(code, "what was to happen at the end of a socket panicked");
        }
    }
}

impl fmt::Debug for Farewell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Farewell").finish_non_exhaustive()
    }
}
