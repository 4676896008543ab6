//! The ChannelCluster API.
