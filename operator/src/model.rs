//! What the operator sees of a cluster, what it wants, and what it decides to do about it.
//!
//! These are plain values. `observe` fills [`Observed`] from live lists and from the nodes' admin
//! APIs, `build` fills [`Desired`], [`crate::plan`] turns both into a [`Plan`], `execute` carries
//! the plan out. Nothing here does I/O, reads a clock, or remembers anything between two
//! reconciles.

use jiff::{SignedDuration, Timestamp};
use sluice_crds::{ChannelClusterSpec, DrainReason, Reason};
use sluice_node_api::admin::{CordonRequest, DrainPhase, DrainRequest, NodeStatus, ShedRequest};

/// Everything that a reconcile saw, from live reads: the StatefulSet first, then the pods, then
/// their nodes. (Pods older than the StatefulSet could show one that its controller has let go.)
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The StatefulSet; absent before the first apply.
    pub statefulset: Option<StatefulSetState>,
    /// Every pod of the cluster's nodes that the StatefulSet owns, in any order; without one, those
    /// that it left behind.
    pub pods: Vec<PodState>,
}

impl Observed {
    /// Whether there are pods, and all of them are being deleted.
    pub fn all_terminate(&self) -> bool {
        !self.pods.is_empty() && self.pods.iter().all(|p| p.terminating)
    }
}

/// The StatefulSet, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatefulSetState {
    /// Its UID.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `status.observedGeneration`. Behind `generation`: its controller has not acted yet.
    pub observed_generation: i64,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `spec.ordinals.start`, 0 when absent.
    pub ordinals_start: i32,
    /// `spec.updateStrategy.rollingUpdate.partition`: an index counted from `ordinals_start`.
    pub partition: i32,
    /// Annotation [`sluice_crds::names::SPEC_HASH`].
    pub spec_hash: String,
    /// Annotation [`sluice_crds::names::TEMPLATE_HASH`].
    pub template_hash: String,
    /// The record of what was rendered is gone, or is not what the hash says.
    pub template_lost: bool,
    /// Annotation [`sluice_crds::names::ROLLOUT_STARTED_AT`]: when the template was last changed.
    pub rollout_started_at: Option<Timestamp>,
    /// `status.currentRevision`: what a pod below the partition comes back at.
    pub current_revision: String,
    /// `status.updateRevision`: the revision of the template.
    pub update_revision: String,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodState {
    /// Its name.
    pub name: String,
    /// Its UID: a pod that comes back by the same name is another one.
    pub uid: String,
    /// Its resourceVersion, a precondition of what is disruptive.
    pub resource_version: String,
    /// Its ordinal, absolute (`chat-117` → 117).
    pub ordinal: i32,
    /// Label `controller-revision-hash`.
    pub revision: String,
    /// `metadata.creationTimestamp`.
    pub created_at: Option<Timestamp>,
    /// Condition Ready is True.
    pub ready: bool,
    /// When condition Ready last became True.
    pub ready_since: Option<Timestamp>,
    /// Since when it is not, if it ever was seen by its kubelet.
    pub unready_since: Option<Timestamp>,
    /// It has a deletionTimestamp.
    pub terminating: bool,
    /// Why it is there still, though it is being deleted and its node is to have ended, as a sentence
    /// after its name; empty when it goes.
    pub leftover: String,
    /// The node's container runs now, as far as its kubelet has told: without, it has no sockets.
    pub running: bool,
    /// Why it can't start, if it can't.
    pub stuck: Option<StuckReason>,
    /// It is not Ready, and its node ended with an error before: between two such ends of a crash
    /// loop nothing else tells of it.
    pub crashed: bool,
    /// What its kubelet, or the node's own last words, say of that; empty when nothing.
    pub stuck_message: String,
    /// The Kubernetes node that it is on; empty before it is on one.
    pub kubernetes_node: String,
    /// That is not Ready, or its phase is Unknown.
    pub node_unreachable: bool,
    /// Label [`sluice_crds::names::ACCEPTING_LABEL`] is `"true"`.
    pub accepting: bool,
    /// Annotation [`sluice_crds::names::ACCEPTING_SINCE`], on a pod that is accepting.
    pub accepting_since: Option<Timestamp>,
    /// The drain that its annotations commit it to.
    pub drain: Option<DrainCommitment>,
    /// Annotation [`sluice_crds::names::DRAIN_OVERRIDE`].
    pub drain_override: Option<DrainOverride>,
    /// That annotation says something else, which means nothing.
    pub override_unknown: bool,
    /// That somebody asked to evict it.
    pub eviction: Option<Eviction>,
    /// What its node answered to `GET /status` just now; absent when it did not answer.
    pub node: Option<NodeStatus>,
    /// Its node answered, but does not take the operator's token.
    pub denied: bool,
}

impl PodState {
    /// Why there is nothing to tell of its node, as a part of a sentence after its name.
    pub fn silence(&self) -> &'static str {
        match self.denied {
            true => "does not take the admin token of the cluster's Secret (yet)",
            false => "does not answer on its admin port",
        }
    }
    /// Channel sockets, when its node answered.
    pub fn connections(&self) -> Option<u64> {
        self.node.as_ref().map(|n| n.connections)
    }
    /// How far the node is with a drain, when it answered.
    pub fn drain_phase(&self) -> Option<DrainPhase> {
        self.node.as_ref().map(|n| n.drain.phase)
    }
    /// Whether it is being deleted with clients left: it moves them in a drain of its own.
    pub fn leaves(&self) -> bool {
        self.terminating && self.connections().is_some_and(|left| left > 0)
    }
    /// Whether it is being deleted, serves nobody, and does not go.
    pub fn left_over(&self) -> bool {
        !self.leftover.is_empty() && self.connections().is_none_or(|left| left == 0)
    }
    /// Whether it drains: it is committed to, or is being deleted with clients left. Once it is being
    /// deleted and has nobody left, its drain is over.
    pub fn drains(&self) -> bool {
        if !self.terminating {
            return self.drain.is_some();
        }
        let unknown = self.running && self.node.is_none() && !self.left_over();
        self.leaves() || (self.drain.is_some() && unknown)
    }
    /// Whether it has been Ready for at least `min_ready`.
    pub fn available(&self, min_ready: SignedDuration, now: Timestamp) -> bool {
        self.ready && !self.terminating && self.ready_since.is_none_or(|t| now - min_ready >= t)
    }
}

/// Why a pod can't start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StuckReason {
    /// A container waits with reason `CrashLoopBackOff`.
    CrashLoopBackOff,
    /// `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`.
    ImagePull,
    /// `InvalidImageName`: no registry is asked.
    InvalidImageName,
    /// `CreateContainerError`, `CreateContainerConfigError`, `RunContainerError`.
    CreateContainer,
    /// Condition PodScheduled is False with reason `Unschedulable`.
    Unschedulable,
}

impl StuckReason {
    /// That the pod of this name can't start, and why; `said`: what there is to tell of it.
    pub fn sentence(self, pod: &str, said: &str) -> String {
        let colon = if said.is_empty() { "" } else { ": " };
        format!("{pod} can't start: {}{colon}{said}", self.as_str())
    }
    /// As it reads in a message.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::ImagePull => "ImagePullBackOff",
            Self::InvalidImageName => "InvalidImageName",
            Self::CreateContainer => "CreateContainerError",
            Self::Unschedulable => "Unschedulable",
        }
    }
}

/// What a person wants with a pod's drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DrainOverride {
    /// Let it go whatever is left.
    Release,
    /// Do not drain it, for as long as the annotation is there.
    Cancel,
}

impl DrainOverride {
    /// What a value of the annotation means.
    pub fn of(value: &str) -> Option<Self> {
        match value {
            "release" => Some(Self::Release),
            "cancel" => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// That somebody asked to evict a pod, as its annotation
/// [`sluice_crds::names::EVICTION_REQUESTED_AT`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// When, the last time.
    pub requested_at: Timestamp,
    /// Whether its Kubernetes node is cordoned; `None`: that could not be read.
    pub cordoned: Option<bool>,
}

impl Eviction {
    /// How long nobody needs to ask again: `kubectl drain` asks every five seconds, for as long as
    /// it runs.
    pub const LASTS: SignedDuration = SignedDuration::from_mins(5);

    /// Whether it still is asked for.
    pub fn wanted(&self, now: Timestamp) -> bool {
        self.cordoned != Some(false) && now.duration_since(self.requested_at) < Self::LASTS
    }
}

/// A drain as annotations on a pod: written before anything else happens, it is the drain's place
/// in the budget and survives the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainCommitment {
    /// Why it drains.
    pub reason: DrainReason,
    /// When it was decided.
    pub started_at: Timestamp,
    /// When it is over at the latest.
    pub deadline: Timestamp,
    /// The revision it makes way for; empty when the cluster shrinks, and when the pod itself is to
    /// come back elsewhere.
    pub target: String,
    /// Connections when it was decided.
    pub initial: Option<u64>,
    /// When the pod was seen drained.
    pub drained_at: Option<Timestamp>,
}

/// What is wanted: the spec, and what the operator renders from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired<'a> {
    /// `metadata.name`, of the cluster and of its StatefulSet.
    pub name: &'a str,
    /// `metadata.generation`.
    pub generation: i64,
    /// The spec.
    pub spec: &'a ChannelClusterSpec,
    /// Hash of those parts of the spec that the pod template depends on. Must not depend on
    /// `replicas`, `paused`, budgets, or anything that is loaded live.
    pub spec_hash: String,
    /// Hash of the rendered pod template.
    pub template_hash: String,
}

/// What is to be done now, in this order: actions first to last, then the cursor.
///
/// [`Action::SetAccepting`] or [`Action::Commit`] that fails ends the plan: what follows relies on
/// it. Any other step that fails skips only the later steps on the same pod: a node that does not
/// answer must not hold up the rest, and the cursor never depends on it. There is no step that
/// deletes a pod: pods go because the cursor leaves them out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Steps on pods and nodes, in the order to carry them out.
    pub actions: Vec<Action>,
    /// What the StatefulSet's replicas, start, partition and template are to be, always all of
    /// them, in one server-side apply. Equal to what is observed: nothing to do.
    pub cursor: Cursor,
    /// Look again after this long even if nothing changes. Absent: only when something changes.
    pub requeue_after: Option<SignedDuration>,
    /// What the plan waits for, for messages; the most important first.
    pub waiting: Vec<Waiting>,
}

/// Where the StatefulSet stands: the durable cursor of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// `spec.replicas`.
    pub replicas: i32,
    /// `spec.ordinals.start`.
    pub ordinals_start: i32,
    /// `spec.updateStrategy.rollingUpdate.partition`, counted from `ordinals_start`.
    pub partition: i32,
    /// Whether the template changes.
    pub template: TemplateStep,
}

/// Whether the StatefulSet's template changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TemplateStep {
    /// The StatefulSet keeps the template and the hash annotations that it has.
    #[default]
    Keep,
    /// The rendered template is applied, with both hashes and
    /// [`sluice_crds::names::ROLLOUT_STARTED_AT`].
    Apply,
}

/// One step on pods and nodes. Each may be repeated: the state it leads to is the same.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write the drain's annotations (and take the accepting label off in the same patch),
    /// guarded by UID and resourceVersion.
    Commit {
        /// The pod.
        pod: PodRef,
        /// What to write.
        commitment: DrainCommitment,
    },
    /// `POST /drain`: begins a drain, or renews its TTL.
    StartDrain {
        /// The pod.
        pod: PodRef,
        /// The body.
        request: DrainRequest,
    },
    /// Write annotation `drained-at`, guarded by UID and resourceVersion.
    MarkDrained {
        /// The pod.
        pod: PodRef,
        /// The time to write.
        at: Timestamp,
    },
    /// `DELETE /drain`: the node serves again. A node that does not answer stops the plan here.
    CancelDrain {
        /// The pod.
        pod: PodRef,
    },
    /// Take the drain's annotations off, guarded by UID. After [`Action::CancelDrain`], always.
    StripAnnotations {
        /// The pod.
        pod: PodRef,
    },
    /// `POST /shed`: moves some clients to other pods. Replaces the shed under way; a count of 0
    /// ends it.
    Shed {
        /// The pod.
        pod: PodRef,
        /// The body.
        request: ShedRequest,
    },
    /// `DELETE /cordon`: the node takes connections again.
    Uncordon {
        /// The pod.
        pod: PodRef,
    },
    /// Put the accepting label on these pods, or off, all of them together; `true` ones first.
    SetAccepting {
        /// Pods whose label changes, and to what.
        pods: Vec<(PodRef, bool)>,
        /// The time to write on those that get it.
        at: Timestamp,
    },
    /// `POST /cordon`: the node refuses connections, or does for longer.
    Cordon {
        /// The pod.
        pod: PodRef,
        /// The body.
        request: CordonRequest,
    },
}

/// A pod, with what guards a step on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resourceVersion when it was looked at. An earlier step of the same plan on the same
    /// pod changes it: take the one that the earlier patch answered.
    pub resource_version: String,
}

impl From<&PodState> for PodRef {
    fn from(p: &PodState) -> Self {
        Self {
            name: p.name.clone(),
            uid: p.uid.clone(),
            resource_version: p.resource_version.clone(),
        }
    }
}

/// What a plan waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The reason, as conditions give it.
    pub reason: Reason,
    /// The pod that is waited for, when it is one.
    pub pod: Option<String>,
    /// A sentence for a person, without a full stop.
    pub message: String,
}
