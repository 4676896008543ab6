//! How deep JSON that is handed on may be nested. A node relays payloads unread, and clients read them
//! with parsers that fail at some depth: one client must not be able to end the others by it.
//!
//! Looks at JSON that is known to be valid, and allocates nothing.

/// Objects and lists in each other that a payload may be. The parsers of most languages read a few more by
/// default, for what a message has around it: Ruby's 100, Rust's 127, PHP's 512, Python's about 1000.
pub(crate) const MAX_LEVELS: usize = 96;

/// Whether valid JSON has at most [`MAX_LEVELS`] levels.
pub(crate) fn is_shallow(json: &[u8]) -> bool {
    // `[` and `{` differ in this bit. Most have too few to be deep, wherever these stand, and a count
    // in bytes, of no more than one holds, costs next to nothing.
    let opening = |byte: &u8| u8::from(byte | 0x20 == b'{');
    let count = |part: &[u8]| usize::from(part.iter().map(opening).sum::<u8>());
    json.chunks(255).map(count).sum::<usize>() <= MAX_LEVELS || fits(json)
}

fn fits(json: &[u8]) -> bool {
    let (mut levels, mut bytes) = (0_usize, json.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' if levels == MAX_LEVELS => return false,
            b'[' | b'{' => levels += 1,
            b']' | b'}' => levels = levels.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// From after a quote to after the one that ends the string.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn nested(levels: usize) -> String {
        (0..levels).fold("1".to_owned(), |inner, level| match level % 2 {
            0 => format!("[{inner}]"),
            _ => format!(r#"{{"a":{inner}}}"#),
        })
    }

    #[test]
    fn so_many_levels_and_no_more() {
        assert!(is_shallow(nested(MAX_LEVELS).as_bytes()));
        for levels in [MAX_LEVELS + 1, 5000] {
            assert!(!is_shallow(nested(levels).as_bytes()), "{levels}");
        }
    }

    #[test]
    fn brackets_beside_each_other_and_in_strings_are_no_levels() {
        let wide = json!({ "lists": vec![json!([{}]); 1000] }).to_string();
        let brackets = "[{".repeat(1000);
        let quoted =
            [format!("\"{brackets}"), format!("{brackets}\\"), "\\\"".to_owned(), brackets];
        let strings = json!({ "a": quoted, "[{[{": "]]" }).to_string();
        for text in [&wide, &strings] {
            assert!(is_shallow(text.as_bytes()), "{text}");
            let deep = format!(r#"[{text},{}]"#, nested(MAX_LEVELS));
            assert!(!is_shallow(deep.as_bytes()), "what comes after is seen");
        }
    }

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
            Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn it_counts_as_who_reads_it(text in "[\\[{}\\]\"\\\\a]{0,40}", levels in 80_usize..110) {
            let value = (0..levels).fold(json!({ "b": [text] }), |inner, _| json!({ (text.clone()): inner }));
            let json = value.to_string();
            prop_assert_eq!(is_shallow(json.as_bytes()), depth(&value) <= MAX_LEVELS);
        }
    }
}
