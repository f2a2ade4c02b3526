//! The command line. One table says which commands and flags there are; the parser, `--help` and the shell
//! completions are read from it. The runtime starts once for every step of a container's life, so this is a
//! table and a loop rather than a library that builds its model at each start.

pub(crate) mod completion;
pub(crate) mod help;
pub(crate) mod man;
pub(crate) mod parse;
pub(crate) mod table;

pub(crate) use parse::{Invocation, Values, parse};
