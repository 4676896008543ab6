//! A connection that speaks HTTP. What is written to it is waited for, but not for ever: while a client
//! takes nothing the answer is held in memory.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::longpoll::Answering;

/// How long a client may take nothing, as over a WebSocket.
const STUCK: Duration = Duration::from_secs(10);

/// A stream that fails when nothing more can be written to it for too long.
pub(super) struct Patient<S> {
    stream: S,
    answering: Answering,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, answering: Answering) -> Self {
        Self { stream, answering, stuck: None }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// What becomes of a write.
    fn judge(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(STUCK)));
        let late = stuck.as_mut().poll(context).is_ready();
        if late || self.answering.poll_displaced(context).is_ready() {
            self.answering.cut();
            let reason = if late { "it takes no answer" } else { "it has asked anew" };
            return Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, reason)));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Comes when nothing is left to be written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        self.answering.written();
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_and_one_that_is_slow_is_not() {
        let (near, mut far) = duplex(8);
        let mut near = Patient::new(near, Answering::default());
        let reads = async {
            for _ in 0..4 {
                sleep(STUCK * 3 / 4).await;
                far.read_exact(&mut [0; 8]).await.expect("more");
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[7; 40]), reads);
        written.expect("slow, and no more than that");
        let begun = Instant::now();
        let error = near.write_all(&[7; 40]).await.expect_err("nobody reads");
        assert_eq!((error.kind(), begun.elapsed()), (ErrorKind::TimedOut, STUCK));
    }
}
