//! What a person is told when the API server does not take what the operator writes.

use sluice_crds::Reason;

use crate::{
    apply::{Error, PERSISTENT},
    build::Kind,
};

impl Error {
    /// What a person is told of it, if it needs one. `failures`: how many in a row, this one
    /// included.
    pub fn trouble(&self, failures: u32) -> Option<(Reason, String)> {
        if self.namespace_goes() {
            return None;
        }
        let lasts = failures >= PERSISTENT;
        match self {
            Self::Foreign { .. } => Some((Reason::ApplyConflict, self.to_string())),
            Self::Contested { times, .. } if *times >= PERSISTENT => {
                Some((Reason::ApplyConflict, self.to_string()))
            }
            Self::Api { kind, name, source, .. } => match &**source {
                kube::Error::Api(answer) => {
                    refused(*kind, name, answer.code, &answer.message, lasts)
                }
                _ => None,
            },
            Self::InTheWay { kind, answer, .. } => Some((
                Reason::ApplyConflict,
                format!("{self}: {}: {}", answer.message, make_way(*kind)),
            )),
            Self::Stale(what) if lasts => Some((
                Reason::ApplyConflict,
                format!(
                    "{what} is changed by somebody else each time that the operator writes it: \
                     find out by its managedFields who does, and stop that"
                ),
            )),
            _ => None,
        }
    }
}

fn refused(
    kind: Kind,
    name: &str,
    code: u16,
    message: &str,
    lasts: bool,
) -> Option<(Reason, String)> {
    let told = |reason, advice: &str| {
        Some((reason, format!("{kind:?} {name} was refused ({code}): {message}: {advice}")))
    };
    match code {
        // The API server does not want what the spec leads to.
        400 | 422 => told(
            Reason::InvalidSpec,
            "change what the spec says of it, or set it back to what it was",
        ),
        // It is busy, or gone: that is no fault of the cluster's, and passes.
        429 | 503 | 504 => None,
        _ if !lasts => None,
        401 | 403 => told(
            Reason::ApplyConflict,
            "give the operator the right, or lift the quota or the policy that forbids it",
        ),
        _ => told(Reason::ApplyConflict, by_hand(kind)),
    }
}

/// What a person does about an object that can't be made what it must be.
fn make_way(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => {
            "put one in its place that is of type Opaque and not immutable, or delete it and the \
             operator makes one"
        }
        kind => by_hand(kind),
    }
}

/// What a person does about an object that somebody has changed.
fn by_hand(kind: Kind) -> &'static str {
    match kind {
        // Without its StatefulSet every pod would go, without the Secret every token.
        Kind::StatefulSet | Kind::Secret => "undo what was changed on it by hand",
        _ => "undo what was changed on it by hand, or delete it and the operator makes it anew",
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answered(kind: Kind, code: u16) -> Error {
        let status = Status { message: "no".into(), code, ..Status::default() };
        Error::Api {
            verb: "apply",
            kind,
            name: "chat".into(),
            source: Box::new(kube::Error::Api(Box::new(status))),
        }
    }

    #[test]
    fn what_is_invalid_is_told_at_once() {
        let (reason, message) = answered(Kind::Service, 422).trouble(1).unwrap();
        assert_eq!(reason, Reason::InvalidSpec);
        assert!(message.starts_with("Service chat was refused (422): no: "), "{message}");
    }

    #[test]
    fn a_live_object_that_is_in_the_way_is_not_laid_on_the_spec() {
        let in_the_way = |kind| {
            let answer = Status { message: "no".into(), code: 422, ..Status::default() };
            Error::InTheWay { kind, name: "chat".into(), answer: Box::new(answer) }
                .trouble(1)
                .unwrap()
        };
        let (reason, message) = in_the_way(Kind::Service);
        assert_eq!(reason, Reason::ApplyConflict);
        assert!(message.contains("no") && message.contains("or delete it"), "{message}");
        assert!(!in_the_way(Kind::StatefulSet).1.contains("delete"));
    }

    #[test]
    fn what_fails_again_and_again_is_told_with_what_to_do() {
        let error = answered(Kind::Service, 500);
        assert_eq!(error.trouble(2), None);
        let (reason, message) = error.trouble(3).unwrap();
        assert_eq!(reason, Reason::ApplyConflict);
        assert!(message.contains("or delete it"), "{message}");
        let (_, message) = answered(Kind::StatefulSet, 500).trouble(3).unwrap();
        assert!(!message.contains("delete"), "{message}");
        let (_, message) = answered(Kind::Service, 403).trouble(3).unwrap();
        assert!(message.contains("right"), "{message}");
        let stale = Error::Stale("Service chat".into());
        assert_eq!(stale.trouble(1), None);
        assert_eq!(stale.trouble(3).unwrap().0, Reason::ApplyConflict);
    }

    #[test]
    fn who_puts_a_field_in_again_and_again_is_looked_for() {
        let (name, added) = ("chat".to_owned(), "template.metadata.annotations.x".to_owned());
        let contested =
            |times| Error::Contested { name: name.clone(), added: added.clone(), times }.trouble(1);
        assert_eq!(contested(2), None, "somebody tried twice");
        let twice =
            Error::Contested { name: name.clone(), added: added.clone(), times: 2 }.to_string();
        assert!(!twice.contains("each time"), "{twice}");
        let (reason, message) = contested(3).unwrap();
        assert_eq!(reason, Reason::ApplyConflict);
        assert!(message.contains(&added) && message.contains("managedFields"), "{message}");
    }

    #[test]
    fn a_namespace_that_is_being_deleted_is_no_trouble() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403,
            "details": { "causes": [{ "reason": "NamespaceTerminating" }] },
        }))
        .unwrap();
        let error = Error::Api {
            verb: "apply",
            kind: Kind::Service,
            name: "chat".into(),
            source: Box::new(kube::Error::Api(Box::new(status))),
        };
        assert!(error.namespace_goes());
        assert_eq!(error.trouble(9), None);
        assert!(!answered(Kind::Service, 403).namespace_goes());
    }

    #[test]
    fn an_api_server_that_is_busy_is_no_trouble_of_the_cluster() {
        for code in [429, 503, 504] {
            assert_eq!(answered(Kind::Service, code).trouble(9), None);
        }
    }
}
