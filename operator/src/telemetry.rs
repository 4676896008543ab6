//! Log lines: text or JSON, filtered by `RUST_LOG`. Called once, by `run`.

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::args::LogFormat;

/// Starts writing log lines to stderr.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy()
        // The watches' own lines repeat what we log with the object's name.
        .add_directive(
            "kube_runtime::controller=off"
                .parse()
                .unwrap_or_else(|_| tracing_subscriber::filter::LevelFilter::INFO.into()),
        );
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
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
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::{apply::Error, build::Kind};

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
