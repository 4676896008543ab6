//! The pipeline of one reconcile: observe → build → plan → apply, execute → report. Each step is a
//! module of its own; here they are put in order and their failures are sorted.
//!
//! Nothing that is decided depends on an earlier pass: what the context remembers only saves
//! requests.

mod error;
mod pace;
mod wanted;

pub use error::Error;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{
    Client,
    core::DeserializeGuard,
    runtime::{controller::Action, reflector::ObjectRef},
};
use parking_lot::Mutex;
use sluice_crds::{ChannelCluster, Reason, RedisMode};
use tracing::Instrument;
use wanted::{changed_at, desired, image, unaddressed};

use crate::{
    apply::{self, Applier},
    backoff::Backoff,
    build::{self, Cluster, Defaults, Kind, Rendering, build},
    events::{self, Recorder},
    execute::{Executor, Outcome},
    farewell, hints,
    leader::Leadership,
    metrics::{ClusterLabels, Metrics},
    model::{Observed, Plan},
    node_client::NodeClient,
    observe::observe,
    plan::plan,
    redis_pod, report, settings,
    status::{self, Facts},
    stores::Stores,
    telemetry,
    template::Fight,
    tokens::Tokens,
};

/// The watched kind: an object that can't be read fails alone, not the whole watch.
pub type Guarded = DeserializeGuard<ChannelCluster>;

/// After something changed between plan and step.
pub(crate) const STALE: Duration = Duration::from_millis(500);
/// Between two looks at the pods of a cluster that is being deleted.
const LEAVING: Duration = Duration::from_secs(2);
/// A pass that takes longer hangs, and would keep its place from others.
const PATIENCE: Duration = Duration::from_secs(60);
/// What reconciles share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The nodes.
    pub nodes: NodeClient,
    /// What the operator adds to each spec.
    pub defaults: Defaults,
    /// Whether this process may write.
    pub leadership: Leadership,
    /// Events.
    pub recorder: Recorder,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The last known state of what was made.
    pub stores: Stores,
    /// Failures in a row.
    pub backoff: Backoff<ObjectRef<Guarded>>,
    /// Admin tokens.
    pub tokens: Tokens,
    /// When a pod template was last put right.
    pub owned: Mutex<HashMap<ObjectRef<Guarded>, Fight>>,
    /// When a status was last written.
    pub reported: Mutex<HashMap<ObjectRef<Guarded>, Instant>>,
}

/// Reconciles one cluster.
pub async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let begun = Instant::now();
    let reference = ObjectRef::from_obj(&*object);
    let result = match &object.0 {
        Err(invalid) => Err(Error::Invalid(Box::new(invalid.clone()))),
        Ok(cluster) if farewell::goes(&context, cluster).await => {
            see_off(&context, &reference).await
        }
        Ok(cluster) => {
            let span = tracing::info_span!(
                "reconcile",
                namespace = reference.namespace.as_deref(),
                cluster = reference.name
            );
            let passed = tokio::time::timeout(
                PATIENCE,
                pass(cluster, &context, &reference).instrument(span),
            )
            .await
            .unwrap_or(Err(Error::TooLong));
            match passed {
                Err(Error::NamespaceGoes) => see_off(&context, &reference).await,
                Err(Error::Apply(error)) | Ok(Passed { refused: Some(error), .. })
                    if error.namespace_goes() =>
                {
                    see_off(&context, &reference).await
                }
                passed => passed,
            }
        }
    };
    let word = match &result {
        Ok(Passed { refused: None, .. }) => {
            context.backoff.reset(&reference);
            "ok"
        }
        Ok(Passed { refused: Some(error), .. }) => {
            tracing::warn!(
                namespace = reference.namespace.as_deref(),
                cluster = reference.name,
                error = telemetry::told(error),
                "not all could be written"
            );
            error.category()
        }
        Err(error) => error.category(),
    };
    context.metrics.reconciled(word, begun.elapsed());
    result.map(|passed| passed.next)
}

/// Looks after the pods of a cluster that goes; nothing else is done for it.
async fn see_off(context: &Context, reference: &ObjectRef<Guarded>) -> Result<Passed, Error> {
    let token = context.tokens.last(reference);
    let over = farewell::look(context, reference, token.as_ref(), &mut HashSet::new())
        .await
        .map_err(|source| Error::Farewell(Box::new(source)))?;
    let next = if over { Action::await_change() } else { Action::requeue(LEAVING) };
    Ok(Passed { next, refused: None })
}

/// A pass that got to its end.
struct Passed {
    /// What follows.
    next: Action,
    /// What could not be written.
    refused: Option<apply::Error>,
}

/// What follows a reconcile that failed.
pub fn error_policy(object: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    match error {
        error if error.awaits_change() => Action::await_change(),
        Error::Apply(error) => {
            Action::requeue(pace::wait(error, ObjectRef::from_obj(&*object), &context.backoff))
        }
        _ => Action::requeue(context.backoff.failed(ObjectRef::from_obj(&*object))),
    }
}

async fn pass(
    object: &ChannelCluster,
    context: &Context,
    reference: &ObjectRef<Guarded>,
) -> Result<Passed, Error> {
    // How many passes before this one have failed, in a row.
    let failures = context.backoff.failures(reference);
    let cluster = Cluster::new(object, &context.defaults)?;
    let applier = Applier {
        client: &context.client,
        stores: &context.stores,
        leadership: &context.leadership,
        cluster,
    };
    let (token, mut withheld) = match context.tokens.of(&applier).await {
        Ok(token) => (token, None),
        // It is told, and what is under way goes on by the tokens that were there.
        Err(error) if error.trouble(u32::MAX).is_some() => {
            (context.tokens.known(&applier).unwrap_or_default(), Some(error))
        }
        Err(error) => return Err(error.into()),
    };
    let now = Timestamp::now();
    let mut seen = observe(&context.client, &context.nodes, &cluster, &token, now).await?;
    if seen.doubts_tokens() {
        context.tokens.doubt(&applier);
    }
    if seen.observed.all_terminate() && namespace_goes(context, cluster.namespace).await {
        return Err(Error::NamespaceGoes);
    }
    match context.own_template(&applier, &seen).await {
        Ok(Some(again)) => return Ok(Passed { next: Action::requeue(again), refused: None }),
        Ok(None) => {}
        // Nothing is planned on what somebody else put in; what is under way is kept going.
        Err(error @ apply::Error::Contested { .. }) => withheld = withheld.or(Some(error)),
        Err(error) if error.trouble(failures.saturating_add(1)).is_some() => {
            if matches!(error, apply::Error::Foreign { .. }) {
                // What stands there under the cluster's name tells nothing of the cluster.
                seen.observed = Observed::default();
            }
            withheld = withheld.or(Some(error));
        }
        Err(error) => return Err(error.into()),
    }
    // Whole seconds: what is written is what is read back.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(now);

    let rendering = build(&cluster);
    let desired = desired(object, cluster, rendering.as_ref().ok(), &seen);
    let plan = plan(&desired, &seen.observed, now);

    let executor =
        Executor { applier: &applier, nodes: &context.nodes, token: &token, seen: &seen };
    let outcome = match &rendering {
        Ok(rendering) => carry_out(&executor, rendering, &plan, withheld, now, context).await,
        // Nothing begins by a spec that can't be rendered; what is under way must not run out.
        Err(_) => executor.renew(&plan, &[]).await.map(|()| Outcome::default()),
    };
    let outcome = match outcome.map_err(Error::from) {
        // It may be over at once, and no revision of somebody else's is worth telling of.
        Err(Error::Apply(error @ apply::Error::Contested { .. }))
            if error.trouble(failures).is_none() =>
        {
            return Err(error.into());
        }
        outcome => outcome,
    };

    if let Some(event) = outcome.as_ref().ok().and_then(|o| status::rebalancing(&o.done)) {
        events::publish(&context.recorder, object, vec![event]).await;
    }

    let changed_at = changed_at(object);
    let trouble = match (&rendering, &outcome) {
        (Err(error), _) => Some((Reason::InvalidSpec, error.to_string())),
        (_, Err(Error::Apply(error)) | Ok(Outcome { refused: Some(error), .. })) => {
            error.trouble(failures.saturating_add(1))
        }
        _ => settings::refused(&desired, &seen.observed),
    };
    let replicas = plan.cursor.replicas;
    let hint = hints::read(&context.client, cluster.namespace, &seen.observed, replicas, now).await;
    let hash = rendering.as_ref().ok().map(|rendering| rendering.live_config_hash.as_str());
    let late = hash.and_then(|hash| settings::late(&seen.observed, hash, changed_at, now));
    let hint = if hint.is_empty() { late.unwrap_or_default() } else { hint };
    let unloaded = hash.and_then(|hash| settings::pending(&seen.observed, hash));
    let unloaded = unloaded.unwrap_or_default();
    let redis = redis_pod::read(&context.client, &cluster, &context.stores, now).await;
    let image = image(&cluster, &seen, &plan);
    let service = context.stores.get(Kind::Service, cluster.namespace, cluster.name);
    let unaddressed = service.and_then(|service| unaddressed(&service.data)).unwrap_or_default();
    let facts = Facts { image, trouble, hint, unloaded, redis, unaddressed, changed_at };
    report::report(object, context, &desired, &seen.observed, &plan, &facts, now).await?;

    rendering?;
    let outcome = outcome?;
    let refused = outcome.refused.as_ref();
    let wait = refused.map(|error| pace::wait(error, reference.clone(), &context.backoff));
    let soon = seen.denied() || !facts.unloaded.is_empty();
    let again = if outcome.stale { STALE } else { pace::next(&plan, soon, wait) };
    Ok(Passed { next: Action::requeue(again), refused: outcome.refused })
}

/// Whether the namespace is being deleted. Unknown, such as without the right to look, is no.
async fn namespace_goes(context: &Context, namespace: &str) -> bool {
    farewell::namespace_goes(context, namespace)
        .await
        .inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::debug!(error, "can't see whether the namespace is being deleted");
        })
        .unwrap_or(false)
}

/// Writes what must be there, takes the plan's steps, and deletes what must not be there. `withheld`:
/// why nothing may begin: no tokens for the nodes, a pod template that is not the operator's.
async fn carry_out(
    executor: &Executor<'_>,
    rendering: &Rendering,
    plan: &Plan,
    withheld: Option<apply::Error>,
    now: Timestamp,
    context: &Context,
) -> Result<Outcome, apply::Error> {
    let applier = executor.applier;
    if let Some(error) = withheld {
        executor.renew(plan, &[]).await?;
        return Err(error);
    }
    let redis_auth = match applier.cluster.spec.redis.mode {
        RedisMode::Managed => match applier.ensure_redis_secret().await {
            Ok(digest) => Some(digest),
            Err(error) => {
                executor.renew(plan, &[]).await?;
                return Err(error);
            }
        },
        _ => None,
    };
    let mut refused: Option<apply::Error> = None;
    let mut needed = false;
    for object in &rendering.objects {
        let object = build::with_redis_auth(object, redis_auth.as_deref());
        let ensured = match applier.ensure(&object).await {
            Ok(false) => context.own_template_of(applier, &object).await.map(|()| false),
            written => written,
        };
        match ensured {
            Ok(true) => context.metrics.wrote(),
            Ok(false) => {}
            Err(apply::Error::NotLeading) => return Err(apply::Error::NotLeading),
            // One that can't be written holds up none of the others.
            Err(error) => {
                needed |= needed_by_pods(object.kind);
                refused = refused.or(Some(error));
            }
        }
    }
    if needed && let Some(error) = refused {
        // Nothing new begins; what is under way must not run out meanwhile.
        executor.renew(plan, &[]).await?;
        return Err(error);
    }
    let mut outcome = executor.execute(plan, rendering, now).await?;
    outcome.refused = refused;
    for action in &outcome.done {
        context.metrics.acted(action, &executor.seen.observed);
    }
    let observed = &executor.seen.observed;
    for pod in observed.pods.iter().filter(|pod| outcome.let_go.contains(&pod.uid)) {
        context.metrics.let_go(pod, now);
    }
    if outcome.cursor_moved {
        context.metrics.wrote();
    }
    executor.wake_kubelets(&rendering.live_config_hash).await?;
    for (kind, name) in &rendering.absent {
        if applier.ensure_absent(*kind, name).await? {
            context.metrics.wrote();
        }
    }
    let name = applier.cluster.name;
    if !executor.seen.pods.iter().any(|pod| build::uses_managed_redis(pod, name)) {
        applier.ensure_no_redis(&rendering.absent_redis).await?;
    }
    Ok(outcome)
}

/// Whether a pod that starts without it is not the pod that was decided on.
fn needed_by_pods(kind: Kind) -> bool {
    matches!(kind, Kind::ConfigMap | Kind::ServiceAccount)
}

impl Context {
    /// Drops what is remembered of a cluster that is gone.
    pub fn forget(&self, reference: &ObjectRef<Guarded>) {
        self.backoff.reset(reference);
        self.metrics.forget(&ClusterLabels {
            namespace: reference.namespace.clone().unwrap_or_default(),
            name: reference.name.clone(),
        });
        self.tokens.forget(reference);
        self.reported.lock().remove(reference);
        self.owned.lock().remove(reference);
    }
}
