//! Makes the cluster follow the rows: keyed, level-triggered passes.
