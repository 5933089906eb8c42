//! Who this node is to its peers: lasting id, generation, certificate, and the cluster's secret.
