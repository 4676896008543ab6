//! How two nodes prove to each other that they hold the mesh token, without I/O.
//!
//! ```text
//! dialer → acceptor   Hello      version, nonce, cluster, name, instance, address
//! acceptor → dialer   Challenge  nonce
//! dialer → acceptor   Proof      HMAC-SHA256(token, "dialer" · Hello · Challenge)
//! acceptor → dialer   Welcome    name, instance, HMAC-SHA256(token, "acceptor" · all of the above)
//! ```
//!
//! The token never travels. Whoever lacks it, or names another cluster, learns nothing but a
//! random nonce: not even the node's name. Nonces of both ends, the cluster, both names and the
//! roles are under the code, so nothing can be replayed, reflected or taken from another cluster.
//! The stream that follows is not encrypted: the mesh trusts the network path, not its endpoints.

use std::net::IpAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::codec::frame;

/// The version of handshake and frames; another one is refused.
pub const VERSION: u8 = 2;

const HELLO: u8 = 1;
const CHALLENGE: u8 = 2;
const PROOF: u8 = 3;
const WELCOME: u8 = 4;
const MAX_TEXT: usize = 255;

/// 32 random bytes, new for every handshake.
pub type Nonce = [u8; 32];
/// 16 random bytes that name one run of one node's process.
pub type Instance = [u8; 16];

/// Who a node says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, 1 to 255 bytes.
    pub cluster: String,
    /// The node's name (its pod's), 1 to 255 bytes.
    pub name: String,
    /// This run of its process.
    pub instance: Instance,
    /// Where it can be dialled; without it, at the address it dials from.
    pub ip: Option<IpAddr>,
    /// Its mesh port.
    pub port: u16,
}

/// The other end of a link, proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The node's name.
    pub name: String,
    /// The run of its process.
    pub instance: Instance,
    /// The mesh address it names as its own; known to the acceptor only.
    pub address: Option<(Option<IpAddr>, u16)>,
}

/// Why a handshake failed; [`Refusal::reason`] is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The other end runs another version.
    #[error("version {0} of the mesh protocol, where this node speaks {VERSION}")]
    Version(u8),
    /// The other end belongs to another cluster.
    #[error("another cluster")]
    Cluster,
    /// The other end does not hold this cluster's mesh token.
    #[error("a wrong mesh token")]
    Token,
    /// Bytes that are no handshake.
    #[error("not a mesh handshake")]
    Malformed,
}

impl Refusal {
    /// The metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Cluster => "cluster",
            Self::Token => "token",
            Self::Malformed => "malformed",
        }
    }
}

fn code(token: &[u8], role: &str, parts: &[&[u8]]) -> [u8; 32] {
    // A key of any length is valid for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(token) else { unreachable!() };
    for part in [b"sluice-mesh", role.as_bytes()].iter().chain(parts) {
        // Each part under its length: no two lists of parts have the same bytes.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn put_text(out: &mut BytesMut, text: &str) {
    // Names are checked when the configuration is loaded; a longer one is cut, never wrapped.
    let bytes = &text.as_bytes()[..text.len().min(MAX_TEXT)];
    out.put_u8(bytes.len() as u8);
    out.put_slice(bytes);
}

fn take_text(body: &mut Bytes) -> Result<String, Refusal> {
    let len = usize::from(body.try_get_u8().map_err(|_| Refusal::Malformed)?);
    let bytes = take_bytes(body, len)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Refusal::Malformed)
}

fn take_bytes(body: &mut Bytes, len: usize) -> Result<Bytes, Refusal> {
    if body.len() < len {
        return Err(Refusal::Malformed);
    }
    Ok(body.split_to(len))
}

fn take_array<const N: usize>(body: &mut Bytes) -> Result<[u8; N], Refusal> {
    take_bytes(body, N)?.as_ref().try_into().map_err(|_| Refusal::Malformed)
}

fn expect(got: (u8, Bytes), kind: u8) -> Result<Bytes, Refusal> {
    if got.0 == kind { Ok(got.1) } else { Err(Refusal::Malformed) }
}

/// The dialling end: waits for a Challenge.
pub struct Dialer {
    token: Bytes,
    hello: Bytes,
}

impl Dialer {
    /// Begins; send the frame that comes with it.
    pub fn start(me: &Identity, token: Bytes, nonce: Nonce) -> (Self, Bytes) {
        let mut hello = BytesMut::new();
        hello.put_u8(VERSION);
        hello.put_slice(&nonce);
        put_text(&mut hello, &me.cluster);
        put_text(&mut hello, &me.name);
        hello.put_slice(&me.instance);
        put_text(&mut hello, &me.ip.map(|ip| ip.to_string()).unwrap_or_default());
        hello.put_u16(me.port);
        let hello = hello.freeze();
        let out = frame(HELLO, &hello);
        (Self { token, hello }, out)
    }

    /// Answers the Challenge; send the frame that comes with it.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn challenge(self, got: (u8, Bytes)) -> Result<(Proving, Bytes), Refusal> {
        let challenge = expect(got, CHALLENGE)?;
        if challenge.len() != 32 {
            return Err(Refusal::Malformed);
        }
        let proof = code(&self.token, "dialer", &[&self.hello, &challenge]);
        Ok((Proving { dialer: self, challenge }, frame(PROOF, &proof)))
    }
}

/// The dialling end: waits for a Welcome.
pub struct Proving {
    dialer: Dialer,
    challenge: Bytes,
}

impl Proving {
    /// Checks the Welcome: the acceptor holds the token too.
    ///
    /// # Errors
    /// [`Refusal::Token`] or [`Refusal::Malformed`].
    pub fn welcome(self, got: (u8, Bytes)) -> Result<Remote, Refusal> {
        let mut body = expect(got, WELCOME)?;
        let whole = body.clone();
        let name = take_text(&mut body)?;
        let instance = take_array(&mut body)?;
        let said = whole.slice(..whole.len() - body.len());
        let mac: [u8; 32] = take_array(&mut body)?;
        let want =
            code(&self.dialer.token, "acceptor", &[&self.dialer.hello, &self.challenge, &said]);
        if !bool::from(mac.ct_eq(&want)) {
            return Err(Refusal::Token);
        }
        Ok(Remote { name, instance, address: None })
    }
}

/// The accepting end: waits for a Proof.
pub struct Acceptor {
    /// Those that are taken.
    tokens: Vec<Bytes>,
    hello: Bytes,
    challenge: Nonce,
    welcome: Bytes,
    remote: Remote,
}

impl Acceptor {
    /// Takes the Hello of whoever dialled, to prove any of `tokens`; send the frame that comes with it.
    ///
    /// # Errors
    /// [`Refusal::Version`], [`Refusal::Cluster`] or [`Refusal::Malformed`]: close without a word.
    pub fn hello(
        me: &Identity,
        tokens: Vec<Bytes>,
        nonce: Nonce,
        got: (u8, Bytes),
    ) -> Result<(Self, Bytes), Refusal> {
        let hello = expect(got, HELLO)?;
        let mut body = hello.clone();
        match body.try_get_u8().map_err(|_| Refusal::Malformed)? {
            VERSION => {}
            other => return Err(Refusal::Version(other)),
        }
        let _nonce: Nonce = take_array(&mut body)?;
        if take_text(&mut body)? != me.cluster {
            return Err(Refusal::Cluster);
        }
        let name = take_text(&mut body)?;
        let instance = take_array(&mut body)?;
        let ip = match take_text(&mut body)? {
            text if text.is_empty() => None,
            text => Some(text.parse().map_err(|_| Refusal::Malformed)?),
        };
        let port = body.try_get_u16().map_err(|_| Refusal::Malformed)?;
        if !body.is_empty() || name.is_empty() {
            return Err(Refusal::Malformed);
        }
        let mut welcome = BytesMut::new();
        put_text(&mut welcome, &me.name);
        welcome.put_slice(&me.instance);
        let remote = Remote { name, instance, address: Some((ip, port)) };
        let welcome = welcome.freeze();
        let out = frame(CHALLENGE, &nonce);
        Ok((Self { tokens, hello, challenge: nonce, welcome, remote }, out))
    }

    /// Checks the Proof; send the frame that comes with the peer.
    ///
    /// # Errors
    /// [`Refusal::Token`] or [`Refusal::Malformed`]: close without a word.
    pub fn proof(self, got: (u8, Bytes)) -> Result<(Remote, Bytes), Refusal> {
        let mut body = expect(got, PROOF)?;
        let proof: [u8; 32] = take_array(&mut body)?;
        let proves = |token: &&Bytes| {
            let want = code(token, "dialer", &[&self.hello, &self.challenge]);
            bool::from(proof.ct_eq(&want))
        };
        let token = self.tokens.iter().find(proves).ok_or(Refusal::Token)?;
        let mac = code(token, "acceptor", &[&self.hello, &self.challenge, &self.welcome]);
        let out = frame(WELCOME, &[&self.welcome[..], &mac].concat());
        Ok((self.remote, out))
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
