//! A warm transaction allocates nothing in the proxy's own code: not to judge it, nor to write it for its connection, nor to
//! read what comes back.

#[path = "../benches/transactions.rs"]
mod transactions;

use transactions::{Pair, Shared, Transaction};

/// After so many turns caches and buffers are warm.
const WARM: usize = 10;

/// Turns that are counted: more than any buffer grows by in steps.
const COUNTED: usize = 1000;

/// Allocations of one client's transactions, each as the one before.
fn allocations(before: Option<&Transaction>, transaction: &Transaction) -> u64 {
    let (shared, mut pair) = (Shared::new(), Pair::new());
    if let Some(before) = before {
        before.run(&mut pair, &shared);
    }
    for _ in 0..WARM {
        transaction.run(&mut pair, &shared);
    }
    let counted = allocation_counter::measure(|| {
        for _ in 0..COUNTED {
            transaction.run(&mut pair, &shared);
        }
    });
    counted.count_total
}

#[test]
fn simple() {
    assert_eq!(allocations(None, &Transaction::simple()), 0);
}

#[test]
fn extended() {
    assert_eq!(allocations(None, &Transaction::extended()), 0);
}

#[test]
fn prepared() {
    let prepare = Transaction::prepare();
    assert_eq!(allocations(Some(&prepare), &Transaction::prepared()), 0);
}

#[test]
fn a_block_that_begins_late() {
    assert_eq!(allocations(None, &Transaction::block()), 0);
}

#[test]
fn what_is_new_is_counted() {
    let (shared, mut pair) = (Shared::new(), Pair::new());
    let counted = allocation_counter::measure(|| Transaction::simple().run(&mut pair, &shared));
    assert!(counted.count_total > 0, "the first of its shape is parsed");
}
