//! WebSocket frames (RFC 6455), server side, sans-I/O: bytes in, messages out, and back.
//!
//! It never reads or writes a socket, holds no buffer while no frame is incomplete, and never
//! panics whatever the bytes.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

#[cfg(test)]
mod autobahn;
#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;
#[cfg(test)]
mod tests;

/// Close codes that a node sends (`P-CODE`). 1000 is missing on purpose: phoenix.js before 1.8.16
/// does not come back after it.
pub mod code {
    /// The server has asked the client to go.
    pub const AWAY: u16 = 1001;
    /// A frame breaks RFC 6455.
    pub const PROTOCOL: u16 = 1002;
    /// Text that is not UTF-8.
    pub const BAD_UTF8: u16 = 1007;
    /// The client reads too slowly, or breaks a rule that has no code of its own.
    pub const POLICY: u16 = 1008;
    /// A message over the limit (`P-CON-12`).
    pub const TOO_BIG: u16 = 1009;
    /// A message that is no channel message (`P-ERR-4`), or a fault of the node.
    pub const INTERNAL: u16 = 1011;
    /// The client should connect again: drain, shed, shutdown (`P-CODE-5`).
    pub const RESTART: u16 = 1012;
    /// The node has no room for what the client sends; later it may (`P-CODE-6`).
    pub const BUSY: u16 = 1013;
    /// No frame for too long (`P-HB-3`: anything but 1000).
    pub const IDLE: u16 = 1002;
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A whole message, fragments joined, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A text message.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping, to be answered by a pong with the same bytes (at most 125).
    Ping(Cow<'a, [u8]>),
    /// A pong.
    Pong,
    /// The peer closes, with its code if it gave one.
    Close(Option<u16>),
}

/// Why a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame breaks RFC 6455.
    #[error("a frame breaks the WebSocket protocol: {0}")]
    Protocol(&'static str),
    /// Text that is not UTF-8.
    #[error("a text message is not UTF-8")]
    BadUtf8,
    /// A message over the limit.
    #[error("a message is over the limit")]
    TooBig,
}

impl Violation {
    /// The close code that tells it (`P-CODE-3`).
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => code::PROTOCOL,
            Self::BadUtf8 => code::BAD_UTF8,
            Self::TooBig => code::TOO_BIG,
        }
    }
}

/// Decodes one client's frames. Between two messages it holds nothing on the heap.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

/// What is kept while a frame or a fragmented message is incomplete.
#[derive(Debug, Default)]
struct Partial {
    /// Bytes of a header that is not whole yet; at most 14.
    header: Vec<u8>,
    /// The frame whose payload is arriving.
    frame: Option<Open>,
    /// Payload so far of that frame, if it is a control frame; at most 125 bytes.
    control: Vec<u8>,
    /// Payload so far of the data message.
    message: Vec<u8>,
    /// TEXT or BINARY while a data message has begun.
    kind: Option<u8>,
    /// A frame ended that was not its message's last.
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    remaining: usize,
}

struct Head {
    frame: Open,
    len: usize,
}

impl Decoder {
    /// Takes the next message out of `input`, moving it past what was used and unmasking in place.
    /// `None`: more bytes are needed, and `input` is empty. `limit` bounds a whole message, in
    /// bytes.
    ///
    /// # Errors
    ///
    /// A [`Violation`] ends the connection; the decoder is of no use after it.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        limit: usize,
    ) -> Result<Option<Item<'a>>, Violation> {
        if self.partial.is_none() {
            let Some(head) = head(input, None, 0, limit)? else {
                if !input.is_empty() {
                    self.partial = Some(Box::new(Partial {
                        header: std::mem::take(input).to_vec(),
                        ..Partial::default()
                    }));
                }
                return Ok(None);
            };
            if head.frame.fin && input.len() >= head.len + head.frame.remaining {
                let (_, rest) = std::mem::take(input).split_at_mut(head.len);
                let (payload, rest) = rest.split_at_mut(head.frame.remaining);
                *input = rest;
                unmask(payload, head.frame.mask);
                return finish(head.frame.opcode, Cow::Borrowed(payload)).map(Some);
            }
        }
        let mut partial = self.partial.take().unwrap_or_default();
        let item = partial.next(input, limit)?;
        if !partial.is_idle() {
            self.partial = Some(partial);
        }
        Ok(item)
    }

    /// Memory that is taken because a message is incomplete, in bytes.
    pub fn buffered(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            let held = [&partial.header, &partial.control, &partial.message];
            size_of::<Partial>() + held.map(Vec::capacity).iter().sum::<usize>()
        })
    }

    /// Whether frames have ended, since this was last asked, of a message that has not.
    pub fn took_fragment(&mut self) -> bool {
        self.partial.as_mut().is_some_and(|partial| std::mem::take(&mut partial.ended))
    }

    /// Gives back what is held of a message that nobody will read; the frames after it are found still.
    pub fn forget(&mut self) {
        if let Some(partial) = &mut self.partial {
            partial.message = Vec::new();
            // What is left of a text is none.
            partial.kind = partial.kind.map(|_| BINARY);
        }
    }
}

impl Partial {
    fn is_idle(&self) -> bool {
        self.header.is_empty() && self.frame.is_none() && self.kind.is_none()
    }

    fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        limit: usize,
    ) -> Result<Option<Item<'a>>, Violation> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.head(input, limit)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let take = frame.remaining.min(input.len());
            let (payload, rest) = std::mem::take(input).split_at_mut(take);
            *input = rest;
            unmask(payload, frame.mask);
            frame.mask.rotate_left(take % 4);
            frame.remaining -= take;
            let control = frame.opcode >= CLOSE;
            if control {
                self.control.extend_from_slice(payload);
            } else {
                self.message.extend_from_slice(payload);
            }
            if frame.remaining > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            if control {
                let payload = std::mem::take(&mut self.control);
                return finish(frame.opcode, Cow::Owned(payload)).map(Some);
            }
            if frame.fin {
                let kind = self.kind.take().unwrap_or(BINARY);
                return finish(kind, Cow::Owned(std::mem::take(&mut self.message))).map(Some);
            }
            self.ended = true;
        }
    }

    /// Reads the next header, from what is kept and from `input`.
    fn head(&mut self, input: &mut &mut [u8], limit: usize) -> Result<Option<Open>, Violation> {
        let kept = self.header.len();
        let want = (14 - kept).min(input.len());
        self.header.extend_from_slice(&input[..want]);
        let Some(head) = head(&self.header, self.kind, self.message.len(), limit)? else {
            *input = &mut std::mem::take(input)[want..];
            return Ok(None);
        };
        *input = &mut std::mem::take(input)[head.len - kept..];
        self.header.clear();
        if head.frame.opcode == TEXT || head.frame.opcode == BINARY {
            self.kind = Some(head.frame.opcode);
        }
        Ok(Some(head.frame))
    }
}

/// Parses a header; `None` when `bytes` holds only part of one. `kind` is the data message under
/// way and `so_far` its length.
fn head(
    bytes: &[u8],
    kind: Option<u8>,
    so_far: usize,
    limit: usize,
) -> Result<Option<Head>, Violation> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    if first & 0x70 != 0 {
        return Err(Violation::Protocol("reserved bit"));
    }
    if second & 0x80 == 0 {
        return Err(Violation::Protocol("frame without a mask"));
    }
    let short = usize::from(second & 0x7f);
    match opcode {
        CONTINUATION if kind.is_none() => return Err(Violation::Protocol("nothing to continue")),
        TEXT | BINARY if kind.is_some() => return Err(Violation::Protocol("message in a message")),
        CONTINUATION | TEXT | BINARY => {}
        CLOSE | PING | PONG if !fin => return Err(Violation::Protocol("fragmented control frame")),
        CLOSE | PING | PONG if short > 125 => {
            return Err(Violation::Protocol("control frame over 125 bytes"));
        }
        CLOSE | PING | PONG => {}
        _ => return Err(Violation::Protocol("reserved opcode")),
    }
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let len = 2 + extended + 4;
    if bytes.len() < len {
        return Ok(None);
    }
    let length = match short {
        126 | 127 => bytes[2..2 + extended].iter().fold(0u64, |n, b| n << 8 | u64::from(*b)),
        short => short as u64,
    };
    if (short == 126 && length < 126) || (short == 127 && length <= 0xffff) {
        return Err(Violation::Protocol("length not in its shortest form"));
    }
    let remaining = usize::try_from(length).map_err(|_| Violation::TooBig)?;
    if opcode < CLOSE && remaining > limit.saturating_sub(so_far) {
        return Err(Violation::TooBig);
    }
    let mask = [bytes[len - 4], bytes[len - 3], bytes[len - 2], bytes[len - 1]];
    Ok(Some(Head { frame: Open { fin, opcode, mask, remaining }, len }))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    // So wide that the compiler makes vectors of it.
    let wide: [u8; 32] = std::array::from_fn(|at| mask[at % 4]);
    let mut chunks = payload.chunks_exact_mut(wide.len());
    for chunk in &mut chunks {
        for (byte, mask) in chunk.iter_mut().zip(wide) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(wide) {
        *byte ^= mask;
    }
}

fn finish(opcode: u8, payload: Cow<'_, [u8]>) -> Result<Item<'_>, Violation> {
    Ok(match opcode {
        TEXT => Item::Text(match payload {
            Cow::Borrowed(bytes) => {
                Cow::Borrowed(simdutf8::basic::from_utf8(bytes).map_err(|_| Violation::BadUtf8)?)
            }
            Cow::Owned(bytes) => {
                Cow::Owned(String::from_utf8(bytes).map_err(|_| Violation::BadUtf8)?)
            }
        }),
        PING => Item::Ping(payload),
        PONG => Item::Pong,
        CLOSE => Item::Close(close_code(&payload)?),
        _ => Item::Binary(payload),
    })
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let [high, low, ref reason @ ..] = *payload else {
        return if payload.is_empty() {
            Ok(None)
        } else {
            Err(Violation::Protocol("close code of one byte"))
        };
    };
    let code = u16::from_be_bytes([high, low]);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("close code that may not be sent"));
    }
    simdutf8::basic::from_utf8(reason).map_err(|_| Violation::BadUtf8)?;
    Ok(Some(code))
}

/// Appends a frame header for `len` payload bytes.
fn put_head(opcode: u8, len: usize, out: &mut BytesMut) {
    out.put_u8(0x80 | opcode);
    match len {
        0..=125 => out.put_u8(len as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(len as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
}

fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    put_head(opcode, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out.freeze()
}

/// The payload of a frame that this node has made.
pub fn payload(frame: &[u8]) -> &[u8] {
    let head = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.get(head..).unwrap_or_default()
}

/// One text message as one frame.
pub fn text(payload: &[u8]) -> Bytes {
    frame(TEXT, payload)
}

/// One binary message as one frame.
pub fn binary(payload: &[u8]) -> Bytes {
    frame(BINARY, payload)
}

/// A pong with the ping's bytes.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(PONG, payload)
}

/// A close frame; without a code it has no payload.
pub fn close(code: Option<u16>) -> Bytes {
    match code {
        Some(code) => frame(CLOSE, &code.to_be_bytes()),
        None => frame(CLOSE, &[]),
    }
}
