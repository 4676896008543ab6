//! Finds the line of a field in a YAML text, so that an error of meaning can name it.
//!
//! By indentation alone: of a field in flow style it finds the line where the flow begins.

/// The line, from 1, of `field` (`pubsub.redis.urlFile`, `channels[2].topic`), or of the nearest
/// parent that is there; `None` without any.
pub(super) fn locate(text: &str, field: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    let mut range = 0..lines.len();
    let mut found = None;
    for part in field.split('.') {
        let (key, index) = match part.split_once('[') {
            Some((key, rest)) => (key, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let Some(at) = range.clone().find(|i| key_of(lines[*i]) == Some(key)) else { break };
        found = Some(at);
        range = at + 1..end(&lines, at, range.end);
        let Some(index) = index else { continue };
        let dash = range.clone().find(|i| lines[*i].trim_start().starts_with('-'));
        let Some(depth) = dash.map(|i| indent(lines[i])) else { break };
        let is_item =
            |i: &usize| indent(lines[*i]) == depth && lines[*i].trim_start().starts_with('-');
        let mut items = range.clone().filter(is_item).skip(index);
        let Some(at) = items.next() else { break };
        found = Some(at);
        range = at..items.next().unwrap_or(range.end);
    }
    found.map(|i| i as u64 + 1)
}

/// The field whose value begins at `line` and `column`, both from 1; `None` where that is not plain to see.
pub(super) fn field_at(text: &str, line: u64, column: u64) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(usize::try_from(line).ok()?).collect();
    let (last, above) = lines.split_last()?;
    let column = usize::try_from(column).ok()?.checked_sub(1)?;
    let before: String = last.chars().take(column).collect();
    let mut names = Vec::new();
    for (at, char) in before.char_indices() {
        match char {
            '{' => names.push(key_before(&before[..at])?),
            '}' => _ = names.pop(),
            _ => {}
        }
    }
    names.push(key_before(&before)?);
    let mut depth = key_indent(last);
    for line in above.iter().rev() {
        if let Some(key) = key_of(line).filter(|_| key_indent(line) < depth) {
            names.insert(0, key);
            depth = key_indent(line);
        }
    }
    Some(names.join("."))
}

/// The key that `text` ends with.
fn key_before(text: &str) -> Option<&str> {
    let text = text.trim_end().strip_suffix(':')?.trim_end_matches('"');
    let key = text.rsplit(|c: char| !c.is_ascii_alphanumeric()).next();
    key.filter(|key| !key.is_empty())
}

fn key_indent(line: &str) -> usize {
    line.len() - line.trim_start().trim_start_matches("- ").trim_start().len()
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn key_of(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches("- ").trim_start();
    if line.starts_with('#') {
        return None;
    }
    line.split_once(':').map(|(key, _)| key.trim().trim_matches('"'))
}

/// Where the block that begins at `at` ends.
fn end(lines: &[&str], at: usize, limit: usize) -> usize {
    let depth = indent(lines[at]);
    let closes = |i: &usize| {
        let l = lines[*i];
        let item = l.trim_start().starts_with('-');
        !l.trim().is_empty()
            && !l.trim_start().starts_with('#')
            && (indent(l) < depth || indent(l) == depth && !item)
    };
    (at + 1..limit).find(closes).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment: with a colon
cluster: c
listen:
  http: x
pubsub:
  redis:
    urlFile: /x
channels:
- topic: a
  events: [x]
- events: [y]
  topic: b
socket: {path: x}
";

    #[test]
    fn names_the_field_of_a_value() {
        let text = "a: -1\nb:\n  c: {d: {e: 1}, \"f\": -1}\n  g:\n  - h: 1\n    i: -1\n  - -1\n";
        for (line, column, field) in [
            (1, 4, Some("a")),
            (3, 23, Some("b.c.f")),
            (3, 14, Some("b.c.d.e")),
            (6, 8, Some("b.g.i")),
            (7, 5, None),
            (1, 0, None),
            (9, 9, None),
        ] {
            assert_eq!(field_at(text, line, column).as_deref(), field, "{line}:{column}");
        }
    }

    #[test]
    fn finds_fields_items_and_nearest_parents() {
        for (field, line) in [
            ("cluster", Some(2)),
            ("listen.http", Some(4)),
            ("pubsub.redis.urlFile", Some(7)),
            ("channels[0].topic", Some(9)),
            ("channels[1].topic", Some(12)),
            ("channels[1].other", Some(11)),
            ("socket.path", Some(13)),
            ("listen.mesh", Some(3)),
            ("absent", None),
        ] {
            assert_eq!(locate(TEXT, field), line, "{field}");
        }
    }
}
