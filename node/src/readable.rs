//! What a Phoenix refuses (`P-ERR-4`) of JSON that is well formed: half of a surrogate pair, a number
//! that is beyond a float, an integer of over 1024 bytes, as its decoder, Jason, does. The decoders of
//! other languages fail at these, too: one client must not be able to end others by them.
//!
//! Looks at JSON that is known to be valid, and allocates nothing.

/// Most bytes of an integer, its sign among them.
const MAX_INTEGER: usize = 1024;
/// Digits that are looked for in one go. A number whose exponent has two digits at the most is beyond a
/// float with 210 digits before its point at the least, and so many have this many in a row wherever
/// one begins to count.
const RUN: usize = 64;

/// Whether a Phoenix would read this, which is valid JSON.
pub(crate) fn is_readable(json: &str) -> bool {
    !is_suspect(json.as_bytes()) || scan(json)
}

/// Whether there could be something that is not readable, in a string or outside. Most messages have
/// nothing that looks so, and to see that costs next to nothing.
fn is_suspect(json: &[u8]) -> bool {
    let pairs = json.iter().zip(json.iter().skip(1));
    let escape_or_exponent = |(a, b): (&u8, &u8)| {
        u8::from((*a == b'\\') | (a | 0x20 == b'e') & (b.is_ascii_digit() | (*b == b'+')))
    };
    let surrogate_or_hundreds = |[a, b, c, d, e]: &[u8; 5]| {
        let surrogate = (*a == b'\\') & (*b == b'u') & (c | 0x20 == b'd');
        let exponent =
            a.is_ascii_digit() & (b | 0x20 == b'e') & (c.is_ascii_digit() | (*c == b'+'));
        u8::from(surrogate | exponent & d.is_ascii_digit() & e.is_ascii_digit())
    };
    // Neither has a way out of its middle, so that many bytes are looked at in one step.
    pairs.map(escape_or_exponent).fold(0, |all, one| all | one) != 0
        && json.array_windows().map(surrogate_or_hundreds).fold(0, |all, one| all | one) != 0
        || json.chunks_exact(RUN).any(|chunk| chunk.iter().all(u8::is_ascii_digit))
}

fn scan(json: &str) -> bool {
    let (bytes, mut at) = (json.as_bytes(), 0);
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b'"' => string(bytes, at + 1),
            b'-' | b'0'..=b'9' => number(json, at),
            _ => Some(at + 1),
        };
        let Some(end) = end else { return false };
        at = end;
    }
    true
}

/// From after a quote to after the one that ends the string; none if it has half of a pair.
fn string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' if bytes.get(at + 1) == Some(&b'u') => match unit(bytes, at)? {
                0xd800..=0xdbff if matches!(unit(bytes, at + 6)?, 0xdc00..=0xdfff) => at += 12,
                0xd800..=0xdfff => return None,
                _ => at += 6,
            },
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The unit of UTF-16 that is escaped here.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(br"\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// From the begin of a number to after it; none if that is too large.
fn number(json: &str, at: usize) -> Option<usize> {
    let rest = &json[at..];
    let part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let text = rest.split_once(|c| !part(c)).map_or(rest, |(text, _)| text);
    let fits = match text.contains(['.', 'e', 'E']) {
        true => text.parse::<f64>().is_ok_and(f64::is_finite),
        false => text.len() <= MAX_INTEGER,
    };
    fits.then_some(at + text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Numbers, and whether Jason reads them, by the sources of its version 1.4.5 and of OTP.
    fn numbers() -> Vec<(String, bool)> {
        let digits = |count: usize| "9".repeat(count);
        let mut all: Vec<_> = [
            ("0", true),
            ("-0.0", true),
            ("1e5", true),
            ("1E+5", true),
            ("1e308", true),
            ("1.7976931348623157e308", true),
            ("1.7976931348623157E+0308", true),
            ("1.7976931348623159e308", false),
            ("1e309", false),
            ("-1e309", false),
            ("1E+999999", false),
            ("123456e304", false),
            ("0.0001e312", true),
            ("0.0001e313", false),
            ("0e999999", true),
            ("-0e999999", true),
            ("0.000e+99999999999999999999999", true),
            ("1e99999999999999999999999", false),
            ("1e-400", true),
            ("1e-99999999999999999999999", true),
        ]
        .map(|(text, reads)| (text.to_owned(), reads))
        .into();
        all.extend([
            (digits(1024), true),
            (digits(1025), false),
            (format!("-{}", digits(1023)), true),
            (format!("-{}", digits(1024)), false),
            (format!("{}.0", digits(308)), true),
            (format!("{}.0", digits(309)), false),
            (format!("{}e98", digits(210)), true),
            (format!("{}e99", digits(210)), false),
            (format!("{}e-1", digits(310)), false),
            (format!("{}e-2000", digits(2000)), true),
            (format!("0.{}", digits(2000)), true),
        ]);
        all
    }

    #[test]
    fn numbers_beyond_a_float_and_integers_too_long_are_not_readable() {
        for (number, reads) in numbers() {
            for json in [number.clone(), format!(r#"{{"a":[1,{number} ,"b"]}}"#)] {
                assert_eq!(is_readable(&json), reads, "{json}");
            }
            for begin in 0..RUN {
                let json = format!(r#"{{"{}":{number}}}"#, "x".repeat(begin));
                assert_eq!(is_readable(&json), reads, "{json}");
            }
            assert!(is_readable(&format!(r#"["{number}"]"#)), "in a string it is none");
        }
    }

    #[test]
    fn half_of_a_surrogate_pair_is_not_readable() {
        for (text, reads) in [
            (r"\ud834\udd1e", true),
            (r"\uD834\uDD1E", true),
            (r"\ud799\ue000", true),
            (r"\\ud800", true),
            (r"ud800", true),
            (r"\ud800", false),
            (r"\uDBFF", false),
            (r"\udc00", false),
            (r"\uDfFf", false),
            (r"\udd1e\ud834", false),
            (r"\ud834\ud834\udd1e", false),
            (r"\ud834\udd1e\udd1e", false),
            (r"\ud834x\udd1e", false),
            (r"\ud834\n\udd1e", false),
            (r"\\\ud834", false),
        ] {
            for json in [format!(r#""{text}""#), format!(r#"{{"{text}":["\"1e999{text}"]}}"#)] {
                assert_eq!(is_readable(&json), reads, "{json}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_says_what_who_reads_it_finds(
            parts in proptest::collection::vec(
                prop_oneof![
                    r#"-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,4})?"#,
                    r#""(\\u[dD][0-9a-fA-F]{3}|[0-9]e[0-9]{3}|\\n|\\\\|u){0,4}""#,
                ],
                0..6,
            ),
        ) {
            let json = format!("[{}]", parts.join(","));
            let read = serde_json::from_str::<Value>(&json);
            prop_assert_eq!(is_readable(&json), read.is_ok(), "{} {:?}", json, read);
            prop_assert_eq!(scan(&json), read.is_ok());
        }
    }
}
