//! All wiring, in order: logs, TLS, the API server, health, the CRD, leadership, controllers, and
//! the way back down.

use std::{collections::HashSet, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::http::{HeaderValue, header::USER_AGENT};
use futures::{StreamExt, TryStreamExt, future::join_all, stream::FuturesUnordered};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Config,
    core::PartialObjectMeta,
    runtime::{
        Controller, WatchStreamExt,
        controller::{Config as ControllerConfig, Error as ControllerError},
        reflector::{self, ObjectRef},
        watcher,
    },
};
use rand::RngExt;
use sluice_crds::names;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    args::Args,
    backoff::NoPause,
    build::Defaults,
    events::Recorder,
    farewell::farewell,
    health::{self, Readiness},
    leader::{Elector, KubeLeases, Leadership},
    listen,
    metrics::Metrics,
    node_client::NodeClient,
    reconcile::{self, Context, Guarded},
    sight::{self, Scope},
    stores::{Stores, WATCHED, scoped},
    telemetry, webhook,
};

/// How long reconciles under way may take to end; shorter than the renew deadline, for which
/// leadership stays valid without a renewal.
const WIND_DOWN: Duration = Duration::from_secs(8);

/// Exit code for settings that can't be read, the same as a node's: `EX_CONFIG` of sysexits.h.
const BAD_CONFIG: u8 = 78;

/// Clusters that are gone and whose pods are looked after at the same time.
const LEAVING: usize = 64;

/// The whole program, but for reading its arguments. Here, and not in `main.rs`, so that everything
/// is compiled once.
pub fn main(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("can't start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = telemetry::init(args.log_format) {
        tracing::error!(error = telemetry::told(&error), "can't start");
        return ExitCode::from(BAD_CONFIG);
    }
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "can't go on");
            ExitCode::FAILURE
        }
    }
}

/// Runs the operator until it is told to stop, or until it can't go on.
pub async fn run(args: Args) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("failed to set up TLS: a provider is installed already"))?;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;

    let identity = args.identity.clone().unwrap_or_else(random_identity);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity, "sluice-operator begins");

    let metrics = Arc::new(Metrics::new());
    let readiness = Arc::new(Readiness::default());
    let listener = listen::bind(args.metrics_addr)
        .with_context(|| format!("failed to listen at {}", args.metrics_addr))?;
    // Its own end: probes are answered until the very last.
    let served = CancellationToken::new();
    let server =
        tokio::spawn(health::serve(listener, readiness.clone(), metrics.clone(), served.clone()));

    let mut config = Config::infer().await.context("failed to find the API server's address")?;
    let agent = HeaderValue::from_static(concat!("sluice-operator/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    let own_namespace = config.default_namespace.clone();
    let client = Client::try_from(config).context("failed to make a client for the API server")?;

    if !sight::await_crd(&client, &readiness, &stop).await {
        return Ok(());
    }
    tokio::spawn(sight::keep_crd(client.clone(), readiness.clone(), stop.clone()));

    let recorder = Recorder::new(client.clone(), &identity);
    webhook::start(&args, &client, &recorder, &metrics, &served).await?;

    let result = if args.leader_election {
        let namespace = args.leader_election_namespace.clone().unwrap_or(own_namespace);
        let leases = KubeLeases::new(client.clone(), &namespace, &args.leader_election_id);
        let mut elector = Elector::new(leases, identity.clone(), args.timing())?;
        readiness.elects(elector.leadership());
        if !elector.acquire(&stop).await {
            return Ok(());
        }
        metrics.leading(true);
        let work =
            work(&args, &client, &recorder, elector.leadership(), &metrics, &readiness, &stop);
        let ended = lead(&mut elector, work, &stop).await;
        if ended.is_ok() {
            elector.release().await;
        }
        metrics.leading(false);
        ended
    } else {
        metrics.leading(true);
        let leadership = Leadership::always();
        let work = work(&args, &client, &recorder, leadership, &metrics, &readiness, &stop);
        work.await
    };
    served.cancel();
    let _ = timeout(Duration::from_secs(1), server).await;
    tracing::info!("sluice-operator ends");
    result
}

/// Keeps of the managed fields only when the object itself was changed, and not its status.
fn changes_only(meta: &mut ObjectMeta) {
    let entries = meta.managed_fields.iter_mut().flatten();
    entries.for_each(|entry| entry.fields_v1 = None);
    if let Some(entries) = &mut meta.managed_fields {
        entries.retain(|entry| entry.subresource.as_deref() != Some("status"));
    }
}

/// Works for as long as leadership lasts. When it is lost, work is dropped where it stands, and
/// the process must end.
async fn lead<S: crate::leader::LeaseStore>(
    elector: &mut Elector<S>,
    work: impl Future<Output = anyhow::Result<()>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    tokio::pin!(work);
    tokio::select! {
        kept = elector.keep(stop) => kept.context("ending: a process that lost leadership may not go on")?,
        ended = &mut work => {
            ended?;
            anyhow::ensure!(stop.is_cancelled(), "the controllers ended by themselves");
            return Ok(());
        }
    }
    if timeout(WIND_DOWN, work).await.is_err() {
        tracing::warn!("reconciles under way did not end in time");
    }
    Ok(())
}

/// One controller for each namespace, or one for all.
async fn work(
    args: &Args,
    client: &Client,
    recorder: &Recorder,
    leadership: Leadership,
    metrics: &Arc<Metrics>,
    readiness: &Arc<Readiness>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if let Some(place) = webhook::place(args, client.default_namespace()) {
        let (leadership, metrics) = (leadership.clone(), metrics.clone());
        tokio::spawn(webhook::keep(client.clone(), place, leadership, metrics, stop.clone()));
    }
    let nodes = NodeClient::new().context("failed to make a client for nodes")?;
    let scopes: Vec<Option<&str>> = if args.namespaces.is_empty() {
        vec![None]
    } else {
        args.namespaces.iter().map(|namespace| Some(namespace.as_str())).collect()
    };
    let controllers = scopes.into_iter().map(|namespace| {
        let context = Context {
            client: client.clone(),
            nodes: nodes.clone(),
            defaults: Defaults {
                node_image: args.node_image.clone(),
                redis_image: args.redis_image.clone(),
                cluster_domain: args.cluster_domain.clone(),
            },
            leadership: leadership.clone(),
            recorder: recorder.clone(),
            metrics: metrics.clone(),
            stores: Stores::default(),
            backoff: Default::default(),
            tokens: Default::default(),
            owned: Default::default(),
            reported: Default::default(),
        };
        control(context, namespace, args.concurrency, readiness.clone(), stop.clone())
    });
    join_all(controllers).await;
    Ok(())
}

async fn control(
    mut context: Context,
    namespace: Option<&str>,
    concurrency: u16,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
) {
    let client = context.client.clone();
    let clusters: Api<Guarded> = scoped(&client, namespace);
    let (reader, writer) = reflector::store();
    let (leaving, left) = mpsc::channel(LEAVING);
    let gone = leaving.clone();
    let changed = watcher(clusters, watcher::Config::default())
        .default_backoff()
        .modify(|cluster| {
            if let Ok(cluster) = &mut cluster.0 {
                changes_only(&mut cluster.metadata);
            }
        })
        // One of which nothing was made has no dependents whose end would tell of it.
        .inspect_ok(move |event| {
            if let watcher::Event::Delete(cluster) = event {
                let _ = gone.try_send(ObjectRef::from_obj(cluster));
            }
        })
        .reflect(writer)
        .applied_objects()
        .predicate_filter(what_matters, Default::default());
    let mut controller = Controller::for_stream(changed, reader)
        .with_config(ControllerConfig::default().concurrency(concurrency))
        // Each watch waits by itself: one that fails must not hold up what the others tell.
        .trigger_backoff(NoPause);
    for kind in WATCHED {
        let (stream, resource) = context.stores.watch(&client, namespace, kind);
        controller = controller.owns_stream_with(Box::pin(stream), resource);
    }
    let pods = watcher(scoped::<PartialObjectMeta<Pod>>(&client, namespace), pods_of_clusters())
        .default_backoff()
        .touched_objects();
    let controller = controller
        .watches_stream(pods, cluster_of)
        .graceful_shutdown_on(stop.clone().cancelled_owned());

    let context = Arc::new(context);
    tokio::spawn(see_off(context.clone(), left, stop.clone()));
    let scope = Arc::new(Scope::new(namespace, readiness));
    tokio::spawn({
        let (context, scope) = (context.clone(), scope.clone());
        async move { scope.follow(&context.client, &context.stores, &stop).await }
    });
    controller
        .run(reconcile::reconcile, reconcile::error_policy, context.clone())
        .for_each(|result| {
            match result {
                Ok((object, _)) => tracing::debug!(%object, "reconciled"),
                Err(ControllerError::ObjectNotFound(object)) => {
                    tracing::debug!(%object, "gone");
                    let mut gone = ObjectRef::<Guarded>::new(&object.name);
                    gone.namespace = object.namespace.clone();
                    // Full: the next change of one of its pods comes here again.
                    let _ = leaving.try_send(gone);
                }
                Err(ControllerError::ReconcilerFailed(error, object)) => {
                    let category = error.category();
                    let error = telemetry::told(&error);
                    tracing::warn!(%object, category, error, "reconcile failed");
                }
                Err(error) => scope.watch_failed(&error),
            }
            std::future::ready(())
        })
        .await;
}

/// Looks after the pods of clusters that are gone, each of them once at a time.
async fn see_off(
    context: Arc<Context>,
    mut left: mpsc::Receiver<ObjectRef<Guarded>>,
    stop: CancellationToken,
) {
    let mut under_way = FuturesUnordered::new();
    let mut names = HashSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(gone) = under_way.next() => {
                let gone: ObjectRef<Guarded> = gone;
                names.remove(&gone);
            }
            gone = left.recv(), if names.len() < LEAVING => {
                let Some(gone) = gone else { return };
                if names.insert(gone.clone()) {
                    let context = &context;
                    let token = context.tokens.last(&gone);
                    context.forget(&gone);
                    under_way.push(async move {
                        farewell(context, &gone, token.as_ref()).await;
                        gone
                    });
                }
            }
        }
    }
}

/// Changes of a cluster that wake the reconciler: its spec, its deletion, its annotations. Not its
/// status, which is our own.
fn what_matters(cluster: &Guarded) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let meta = kube::Resource::meta(cluster);
    let mut hash = DefaultHasher::new();
    (&meta.uid, meta.generation, meta.deletion_timestamp.is_some(), &meta.annotations)
        .hash(&mut hash);
    Some(hash.finish())
}

fn pods_of_clusters() -> watcher::Config {
    let selector =
        format!("{},{}={}", names::CLUSTER_LABEL, names::COMPONENT_LABEL, names::COMPONENT_NODE);
    watcher::Config::default().labels(&selector)
}

fn cluster_of(pod: PartialObjectMeta<Pod>) -> Option<ObjectRef<Guarded>> {
    let name = pod.metadata.labels.as_ref()?.get(names::CLUSTER_LABEL)?;
    Some(ObjectRef::new(name).within(pod.metadata.namespace.as_ref()?))
}

fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop");
        stop.cancel();
    });
    Ok(())
}

fn random_identity() -> String {
    format!("sluice-operator-{:08x}", rand::rng().random::<u32>())
}
