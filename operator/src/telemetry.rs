//! Log lines: text or JSON, filtered by `RUST_LOG`. Called once, by `run`.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, prelude::*};

use crate::args::LogFormat;

/// The filter can't be read. It names the variable that the chart's `logLevel` sets.
#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG is no filter of log lines: write such as `info` or `info,sluice_operator=debug`")]
pub struct Error(#[source] Option<ParseError>);

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        Self(Some(error))
    }
}

/// Starts writing log lines to stderr. With a filter that can't be read they are written as well,
/// so that the caller can say so in the format that was asked for.
pub fn init(format: LogFormat) -> Result<(), Error> {
    let (filter, read) = match filter(std::env::var("RUST_LOG").ok().as_deref()) {
        Ok(filter) => (filter, Ok(())),
        Err(error) => (EnvFilter::new("info"), Err(error)),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    read
}

/// What is logged: as `asked`, or from `info` on.
fn filter(asked: Option<&str>) -> Result<EnvFilter, Error> {
    // Blanks would be taken for a part of a name.
    let words = asked.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    let mut words: Vec<_> = words.collect();
    // A word that stands alone and is no level would be taken for a target, and all else be off.
    let is_no_level =
        |word: &&str| !word.contains(['=', '[']) && word.parse::<LevelFilter>().is_err();
    if words.iter().any(is_no_level) {
        return Err(Error(None));
    }
    if words.is_empty() {
        words.push("info");
    }
    let builder = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into());
    // The watches' own lines repeat what we log with the object's name.
    let off = ["kube_runtime::controller=off", "kube_runtime::watcher=off"];
    off.iter().try_fold(builder.parse(words.join(","))?, |filter, off| {
        Ok(filter.add_directive(off.parse()?))
    })
}

/// An error and its causes on one line. Of what the API server answers only its message: the whole
/// answer can be kilobytes, and repeats it.
pub fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let answer = error
            .downcast_ref::<kube::Error>()
            .or_else(|| error.downcast_ref::<Box<kube::Error>>().map(|boxed| &**boxed));
        let part = match answer {
            Some(kube::Error::Api(status)) => format!("{} ({})", status.message, status.code),
            _ => error.to_string(),
        };
        // A transparent error says the same as its cause.
        if !text.ends_with(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = if matches!(answer, Some(kube::Error::Api(_))) { None } else { error.source() };
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{io::Write, sync::Arc};

    use kube::core::Status;
    use parking_lot::Mutex;
    use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
    use serde_json::Value;

    use super::*;
    use crate::{apply::Error, build::Kind};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Keys and values as they are written: a map would hide a key that is there twice.
    struct Line(Vec<(String, Value)>);

    impl<'de> Deserialize<'de> for Line {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Entries;
            impl<'de> Visitor<'de> for Entries {
                type Value = Line;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
                    let mut entries = Vec::new();
                    while let Some(entry) = map.next_entry()? {
                        entries.push(entry);
                    }
                    Ok(Line(entries))
                }
            }
            deserializer.deserialize_map(Entries)
        }
    }

    /// The JSON lines that `work` logs, none of which may have a key twice.
    pub(crate) fn json_lines(work: impl FnOnce()) -> Vec<Vec<(String, Value)>> {
        let written = Written::default();
        let writer = written.clone();
        let lines = fmt::layer().with_writer(move || writer.clone()).json().flatten_event(true);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), work);
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        let line = |line: &str| {
            let Line(entries) = serde_json::from_str(line).unwrap();
            let mut keys: Vec<_> = entries.iter().map(|(key, _)| key).collect();
            keys.sort();
            let all = keys.len();
            keys.dedup();
            assert_eq!(keys.len(), all, "a key twice: {line}");
            entries
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn a_filter_is_taken_with_commas_and_blanks_that_say_nothing() {
        let taken = |asked| {
            let filter = filter(asked).unwrap().to_string();
            let parts = filter.split(',').filter(|part| !part.starts_with("kube_runtime::"));
            parts.collect::<Vec<_>>().join(",")
        };
        assert_eq!(taken(None), "info");
        for (asked, as_if) in [
            ("", "info"),
            (",", "info"),
            ("debug", "debug"),
            ("info,", "info"),
            (",info,,", "info"),
            (" info , sluice_operator=debug , ", "sluice_operator=debug,info"),
            ("off", "off"),
            ("sluice_operator::plan=trace", "sluice_operator::plan=trace"),
        ] {
            assert_eq!(taken(Some(asked)), as_if, "{asked:?}");
        }
    }

    #[test]
    fn a_filter_that_cant_be_read_is_refused() {
        for bad in ["a=b=c", "info,sluice_operator=loud", "loud", "loud,", "info,sluice_operator"] {
            let error = filter(Some(bad)).unwrap_err();
            assert!(told(&error).starts_with("RUST_LOG is no filter"), "{bad}");
        }
    }

    #[test]
    fn of_an_answer_of_the_api_server_only_the_message_is_logged() {
        let status = Status {
            message: "it is taken".into(),
            reason: "Forbidden".into(),
            code: 403,
            ..Status::default()
        };
        let error = Error::Api {
            verb: "apply",
            kind: Kind::Service,
            name: "chat".into(),
            source: Box::new(kube::Error::Api(Box::new(status))),
        };
        assert_eq!(told(&error), "failed to apply Service chat: it is taken (403)");
        let error = crate::reconcile::Error::from(error);
        assert_eq!(told(&error), "failed to apply Service chat: it is taken (403)");
    }
}
