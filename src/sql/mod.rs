//! What a statement does: read, write, or something to its session.
//!
//! `sql` sees text and gives a [`Class`]. It has never met a node or a session. When it does not know, it says write: a
//! read sent to the primary costs a little, a write sent to a standby is a bug.
//!
//! ```text
//!   text ──memo──▶ Class                                                    for one like another but for its literals
//!     └───lexer──▶ normalised key, keywords, flags ──keywords──▶ Class      for everything but reads
//!                                     └──cache──▶ Class                      for what starts like a read
//!                                          └─miss──▶ sqlparser ──walk──▶ Class
//! ```

pub mod catalog;
mod class;
mod classify;
mod execute;
mod explain;
mod function;
mod hint;
mod keyword;
mod learned;
mod lexer;
mod listen;
mod memo;
mod pins;
mod rewrite;
pub mod setting;
mod shapes;
mod system;
#[cfg(test)]
mod tests;
mod transaction;
mod types;
mod vacate;
mod walk;

pub use class::{Access, Class, PinReason, Reason, SequenceCalls, SessionEffect, TxEffect};
pub use classify::{Classifier, Lexing, parsed_here, statements};
pub use execute::{Executed, Prepared, executed, prepared};
pub use explain::{Explanation, Place};
pub use hint::{Hint, HintResult, HintedPlace};
pub use listen::{Listening, listening};
pub use memo::Basis;
pub use pins::{Pins, may_end_pin, mentions};
pub use setting::{Savepoint, deallocate_target, prepare_target, savepoint, set_config};
pub use shapes::{Call, MAX_SHAPES, MAX_SHOWN, ShapeId, ShapeReport, Shapes, without_literals};
pub use transaction::{Control, Isolation, Modes, control};
pub use vacate::vacated;
