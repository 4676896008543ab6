//! What is kept of a client while a question about it waits, beside the question: about as many bytes as
//! that takes in memory, so that what waits can be bounded by what it costs. Pure; never too little by
//! much, never exact.

use serde_json::Value;

use crate::channel::Connect;

/// What an entry of a map or a list costs beside its bytes.
const ENTRY: usize = 128;
/// What a map costs that has one.
const MAP: usize = 512;

/// Of a client that connects, as which the backend is shown `socket`.
pub(super) fn of_connect(connect: &Connect, socket: &Value) -> usize {
    let headers = connect.headers.iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + 2 * ENTRY);
    let target = connect.uri.path().len() + connect.uri.query().map_or(0, str::len);
    let token = connect.auth_token.as_ref().map_or(0, String::len);
    let params = connect.params.iter().map(|(name, value)| name.len() + ENTRY + of(value));
    // The claims are kept as text, as a map, and for the notice of the socket's end.
    headers.sum::<usize>() + target + token + MAP + params.sum::<usize>() + 3 * of(socket)
}

fn of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(|value| ENTRY + of(value)).sum(),
        Value::Object(map) => {
            let entries = map.iter().map(|(name, value)| name.len() + ENTRY + of(value));
            MAP + entries.sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Uri, header::COOKIE};
    use serde_json::json;

    use super::*;

    fn long() -> String {
        "x".repeat(1000)
    }

    #[test]
    fn all_that_a_client_brings_counts_and_so_does_each_map_that_is_made_of_it() {
        let unknown = Connect::unknown(([127, 0, 0, 1], 1).into());
        let least = of_connect(&unknown, &json!({}));
        let changes: [fn(&mut Connect); 7] = [
            |c| drop(c.headers.insert(COOKIE, HeaderValue::try_from(long()).expect("ASCII"))),
            |c| c.uri = Uri::try_from(format!("/?{}", long())).expect("a target"),
            |c| c.auth_token = Some(long()),
            |c| drop(c.params.insert("a".into(), long().into())),
            |c| drop(c.params.insert("a".into(), json!([long()]))),
            |c| drop(c.params.insert("a".into(), json!({ long(): 1 }))),
            |c| drop(c.params.insert("a".into(), json!({"b": {"c": {}}}))),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut connect = unknown.clone();
            change(&mut connect);
            assert!(of_connect(&connect, &json!({})) >= least + 1000, "{number}");
        }
        let claims = json!({"claims": {"sub": long()}});
        assert!(of_connect(&unknown, &claims) >= least + 3000);
    }
}
