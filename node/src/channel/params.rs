//! Parameters of a query as a tree: `a[b]=1&a[c][]=2` is `{"a": {"b": "1", "c": ["2"]}}`
//! (`P-CON-3`). Never fails: what has no sense as a path is a plain name.

use serde_json::{Map, Value};

/// Deeper names are taken as they are written.
const MAX_DEPTH: usize = 16;

/// Most names in all, those of `a[b][c]` one by one: a socket keeps what its connect callback saw, and each
/// name may cost a map.
const MAX_NAMES: usize = 128;

/// Whether these are no more than a socket may bring.
pub(crate) fn are_few(pairs: &[(String, String)]) -> bool {
    let names = pairs.iter().map(|(name, _)| path(name).map_or(1, |path| path.len()));
    pairs.len() <= MAX_NAMES && names.sum::<usize>() <= MAX_NAMES
}

/// Puts `pairs` together; a later one replaces an earlier one of the same name.
pub(crate) fn nested<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in pairs {
        let path = path(name).unwrap_or_else(|| vec![name]);
        put(&mut all, &path, value);
    }
    all
}

/// `a[b][c]` as its parts.
fn path(name: &str) -> Option<Vec<&str>> {
    let (first, rest) = name.split_once('[')?;
    let rest = rest.strip_suffix(']')?;
    let mut path = vec![first];
    path.extend(rest.split("]["));
    let plain = path.iter().all(|part| !part.contains(['[', ']']));
    (plain && !first.is_empty() && path.len() <= MAX_DEPTH).then_some(path)
}

fn put(map: &mut Map<String, Value>, path: &[&str], value: &str) {
    match path {
        [] => {}
        [name] => {
            map.insert((*name).to_owned(), value.into());
        }
        [name, ""] => match map.entry(*name).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(list) => list.push(value.into()),
            other => *other = Value::Array(vec![value.into()]),
        },
        [name, rest @ ..] => {
            let inner = map.entry(*name).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_name_of_a_path_counts() {
        let pairs = |name: &str, count| vec![(name.to_owned(), String::new()); count];
        assert!(are_few(&pairs("a", MAX_NAMES)) && are_few(&pairs("a[b]", MAX_NAMES / 2)));
        assert!(!are_few(&pairs("a", MAX_NAMES + 1)));
        assert!(!are_few(&pairs("a[b]", MAX_NAMES / 2 + 1)));
    }

    #[test]
    fn p_con_3_parameters_nest() {
        let of = |pairs: &[(&str, &str)]| Value::Object(nested(pairs.iter().copied()));
        let pairs = [("a[b]", "1"), ("a[c][]", "2"), ("a[c][]", "3"), ("vsn", "2.0.0"), ("x", "")];
        assert_eq!(of(&pairs), json!({"a": {"b": "1", "c": ["2", "3"]}, "vsn": "2.0.0", "x": ""}));
        assert_eq!(of(&[("a", "1"), ("a[b]", "2")]), json!({"a": {"b": "2"}}));
        for odd in ["a[", "a[b", "[b]", "a]b[", "a[[b]]", &format!("a{}", "[b]".repeat(99))] {
            assert_eq!(of(&[(odd, "1")]), json!({ odd: "1" }));
        }
    }
}
