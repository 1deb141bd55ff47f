//! Whose turn it is to compute, where several engines share the cores: first come, first served, as by the numbers one
//! draws in a waiting room.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A waiting room. Its clones are the same room.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Room>);

#[derive(Debug, Default)]
struct Room {
    numbers: Mutex<Numbers>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Numbers {
    /// The next to be drawn.
    next: u64,
    /// Whose turn it is.
    called: u64,
}

/// A turn; over when dropped.
pub(super) struct Turn<'a>(&'a Room);

impl Turns {
    /// Waits for its turn. Whoever has just had one waits for those who came meanwhile.
    pub(super) fn wait(&self) -> Turn<'_> {
        let mut numbers = self.0.numbers();
        let mine = numbers.next;
        numbers.next += 1;
        while numbers.called != mine {
            numbers = self.0.bell.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(&self.0)
    }
}

impl Room {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.numbers().called += 1;
        self.0.bell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn one_at_a_time_in_the_order_they_came() {
        let (turns, busy, order) = (Turns::default(), AtomicUsize::new(0), Mutex::new(vec![]));
        let waiting = || {
            let numbers = turns.0.numbers();
            numbers.next - numbers.called
        };
        thread::scope(|scope| {
            let first = turns.wait();
            for i in 0..4_u64 {
                let (turns, busy, order) = (turns.clone(), &busy, &order);
                scope.spawn(move || {
                    for round in 0..50 {
                        let _turn = turns.wait();
                        assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0);
                        if round == 0 {
                            order.lock().unwrap().push(i);
                        }
                        thread::yield_now();
                        assert_eq!(busy.fetch_sub(1, Ordering::SeqCst), 1);
                    }
                });
                while waiting() < i + 2 {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_turn_that_panics_is_over() {
        let turns = Turns::default();
        let failed = catch_unwind(AssertUnwindSafe(|| {
            let _turn = turns.wait();
            panic!("as a bug would");
        }));
        assert!(failed.is_err());
        drop(turns.wait());
    }
}
