//! Stand-in: only what `config` names.

/// Stand-in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPolicy {}
