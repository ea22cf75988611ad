//! Why a unit went where it did, for people: judged once more, with what the verdict rests on.

use super::Session;
use super::front::{Context, Frames};
use crate::sql::{Class, Explanation, without_literals};
use crate::wire::frontend;

impl Session {
    /// The statement of a unit that decided on its class, explained, and its text without literals. `None` where no text
    /// did, as for a function call, or where it is known by a name only that the session has forgotten.
    pub fn explain(
        &self,
        unit: &[u8],
        class: Class,
        context: Context<'_>,
    ) -> Option<(Explanation, String)> {
        Frames(unit).find_map(|(header, body)| {
            let text = match header.tag {
                b'Q' => frontend::query(body)?,
                b'P' => frontend::parse(body)?.text,
                b'B' => self.bound(body)?.text(),
                _ => return None,
            };
            let explanation = context
                .classifier
                .explain(text, self.lexing, context.catalog);
            let of_it = explanation.class;
            (of_it.access == class.access && of_it.reason == class.reason)
                .then(|| (explanation, without_literals(text)))
        })
    }
}
