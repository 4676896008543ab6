//! What a client posts: one message, or one a line (`P-LP-5`). Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

/// Lines that are read of one request.
const MAX_LINES: usize = 100;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Posted {
    pub(crate) binary: bool,
    pub(crate) bytes: Bytes,
}

/// A line is neither text nor base64.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The messages of a body with `content_type`.
pub(crate) fn messages(content_type: Option<&[u8]>, body: Bytes) -> Result<Vec<Posted>, Malformed> {
    if content_type != Some(b"application/x-ndjson") {
        return Ok(vec![Posted { binary: false, bytes: body }]);
    }
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let message = |line: &[u8]| {
        if line.starts_with(b"[") {
            return Ok(Posted { binary: false, bytes: body.slice_ref(line) });
        }
        let bytes = STANDARD.decode(line).map_err(|_| Malformed)?;
        Ok(Posted { binary: true, bytes: bytes.into() })
    };
    lines.filter(|line| !line.is_empty()).take(MAX_LINES).map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: Option<&[u8]> = Some(b"application/x-ndjson");

    fn read(content_type: Option<&[u8]>, body: &str) -> Result<Vec<(bool, Vec<u8>)>, Malformed> {
        let messages = messages(content_type, Bytes::copy_from_slice(body.as_bytes()))?;
        Ok(messages.into_iter().map(|posted| (posted.binary, posted.bytes.to_vec())).collect())
    }

    #[test]
    fn p_lp_5_lines_of_text_and_of_base64() {
        let want = vec![(false, b"[1]".to_vec()), (true, vec![0, 1]), (false, b"[2]".to_vec())];
        assert_eq!(read(LINES, "[1]\nAAE=\r\n[2]\n"), Ok(want));
        assert_eq!(read(LINES, "{}"), Err(Malformed));
        assert_eq!(read(LINES, &"[1]\n".repeat(200)).map(|all| all.len()), Ok(MAX_LINES));
    }

    #[test]
    fn p_lp_5_any_other_type_is_one_message() {
        let one = Ok(vec![(false, b"[1]\n[2]".to_vec())]);
        for other in [None, Some(&b"application/json"[..]), Some(b"application/x-ndjson; a=b")] {
            assert_eq!(read(other, "[1]\n[2]"), one);
        }
    }
}
