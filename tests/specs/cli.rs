//! The command line as its users meet it: shell sessions, the lines that they print and the codes that they end with.

mod crash;
mod groups;
mod help;
mod incident;
mod mirror;
mod produce;
mod segments;
mod session;
mod topics;
