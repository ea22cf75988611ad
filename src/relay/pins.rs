//! Pins as the relay sees them: the server is asked for their end, and they are counted.

use super::pools::Mode;
use super::run::Relay;
use crate::sql::{PinReason, Pins};
use crate::wire::Status;

impl Relay {
    /// At a quiet moment of a pinned session: asks what is left of what it is pinned for. In session pooling it keeps its
    /// connection anyway.
    pub(super) fn ask_for_pins(&mut self) {
        let Some(held) = &mut self.held else { return };
        if self.pools.mode == Mode::Session {
            return;
        }
        let server = &mut *held.server;
        let mut out = Vec::new();
        if self.session.ask_for_pins(&mut server.link, &mut out) {
            server.unsent.extend_from_slice(&out);
        }
    }

    /// At a quiet moment: a connection that may never be asked is not kept from those who need one.
    #[inline]
    pub(super) fn give_up_hope(&mut self) {
        if !self.session.is_pinned_in_hope() {
            return;
        }
        let needed = self.held.as_ref().is_some_and(|held| {
            held.server.link.status == Status::Idle && !self.pools.pools[held.node].has_room()
        });
        if needed {
            self.session.lapse_sequence_pin();
            self.note_pins();
        }
    }

    /// Counts pins that have come or gone.
    #[inline]
    pub(super) fn note_pins(&mut self) {
        let (before, now) = (self.flags.pins, self.session.pins());
        if before == now {
            return;
        }
        for pin in now.without(before).iter() {
            self.shared.metrics.pins.at(pin.index()).inc();
            if pin == PinReason::Sequence {
                self.shared.registry.to_be_watched();
            }
        }
        self.note_pins_ended(before.without(now));
        self.flags.pins = now;
    }

    pub(super) fn note_pins_ended(&self, ended: Pins) {
        for pin in ended.iter() {
            self.shared.metrics.pins_ended.at(pin.index()).inc();
        }
    }

    /// The client's cancel request has hit something else: what it was meant for gets another.
    pub(super) fn cancel_again(&mut self) {
        if self.cancelling.is_some() {
            self.flags.cancel_again = true;
        } else {
            self.cancel();
        }
    }
}
