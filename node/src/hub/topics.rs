//! The topics of a node and how many sockets subscribe each.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::Hub;
use crate::shard::inbox::Task;

/// How long the shards may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which topics to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicQuery {
    /// Their names begin with this.
    pub prefix: Arc<str>,
    /// And come after this one.
    pub after: Arc<str>,
    /// The first so many, by name.
    pub limit: usize,
}

/// A topic, and how many sockets of this node subscribe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCount {
    /// Its name.
    pub topic: Arc<str>,
    /// How many.
    pub subscribers: usize,
}

impl TopicQuery {
    /// The first that are asked for among `topics`, in order.
    pub(crate) fn pick<'a>(
        &self,
        topics: impl Iterator<Item = (&'a Arc<str>, usize)>,
    ) -> Vec<TopicCount> {
        let fits = |topic: &str| topic.starts_with(&*self.prefix) && *topic > *self.after;
        let mut found: Vec<_> = topics.filter(|(topic, count)| *count > 0 && fits(topic)).collect();
        if found.len() > self.limit {
            found.select_nth_unstable(self.limit);
            found.truncate(self.limit);
        }
        found.sort_unstable();
        let count = |(topic, subscribers): (&Arc<str>, usize)| TopicCount {
            topic: topic.clone(),
            subscribers,
        };
        found.into_iter().map(count).collect()
    }
}

impl Hub {
    /// Topics with subscribers on this node, in the order of their names; none if a shard does not
    /// answer within five seconds.
    pub async fn topics(&self, query: TopicQuery) -> Option<Vec<TopicCount>> {
        let mut answers = Vec::new();
        for shard in &self.plane.shards {
            let (answer, counted) = oneshot::channel();
            if !shard.inbox.push(Task::Topics(query.clone(), answer)) {
                return None;
            }
            answers.push(counted);
        }
        let answers = tokio::time::timeout(PATIENCE, futures::future::try_join_all(answers));
        // A topic among the first of all is among the first of each shard that has it.
        let mut sum = BTreeMap::<Arc<str>, usize>::new();
        for TopicCount { topic, subscribers } in answers.await.ok()?.ok()?.into_iter().flatten() {
            *sum.entry(topic).or_default() += subscribers;
        }
        let count = |(topic, subscribers)| TopicCount { topic, subscribers };
        Some(sum.into_iter().take(query.limit).map(count).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_two_put_together_are_the_whole_in_order() {
        let names: Vec<Arc<str>> =
            ["b:3", "a:1", "b:1", "b:2", "b", "c", "b:4"].map(Into::into).into();
        let topics = || names.iter().enumerate().map(|(i, name)| (name, usize::from(i != 6)));
        let (mut after, mut got): (Arc<str>, _) = ("".into(), Vec::new());
        loop {
            let query = TopicQuery { prefix: "b:".into(), after: after.clone(), limit: 2 };
            let page = query.pick(topics());
            let Some(last) = page.last() else { break };
            after = last.topic.clone();
            got.extend(page.iter().map(|count| count.topic.to_string()));
        }
        assert_eq!(got, ["b:1", "b:2", "b:3"], "and nothing without subscribers");
    }
}
