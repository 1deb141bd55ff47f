//! A fair lock for engines that share the cores: a ticket lock, granted in order of arrival.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A lock that is granted in order of arrival. Clones are handles to the same lock.
#[derive(Clone, Debug, Default)]
pub struct FairLock(Arc<TicketLock>);

#[derive(Debug, Default)]
struct TicketLock {
    tickets: Mutex<Tickets>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Tickets {
    /// The next ticket to hand out.
    next: u64,
    /// The ticket that holds the lock.
    serving: u64,
}

/// Releases the lock when dropped.
pub(super) struct FairLockGuard<'a>(&'a TicketLock);

impl FairLock {
    /// Waits for the lock. A caller that has just released it queues behind those who are waiting.
    pub(super) fn lock(&self) -> FairLockGuard<'_> {
        let mut tickets = self.0.tickets();
        let ticket = tickets.next;
        tickets.next += 1;
        while tickets.serving != ticket {
            tickets = self.0.released.wait(tickets).unwrap_or_else(PoisonError::into_inner);
        }
        FairLockGuard(&self.0)
    }
}

impl TicketLock {
    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FairLockGuard<'_> {
    fn drop(&mut self) {
        self.0.tickets().serving += 1;
        self.0.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn fair_lock_is_exclusive_and_granted_in_order_of_arrival() {
        let (lock, holders, order) = (FairLock::default(), AtomicUsize::new(0), Mutex::new(vec![]));
        let tickets_outstanding = || {
            let tickets = lock.0.tickets();
            tickets.next - tickets.serving
        };
        thread::scope(|scope| {
            let first = lock.lock();
            for i in 0..4_u64 {
                let (lock, holders, order) = (lock.clone(), &holders, &order);
                scope.spawn(move || {
                    for round in 0..50 {
                        let _guard = lock.lock();
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        if round == 0 {
                            order.lock().unwrap().push(i);
                        }
                        thread::yield_now();
                        assert_eq!(holders.fetch_sub(1, Ordering::SeqCst), 1);
                    }
                });
                while tickets_outstanding() < i + 2 {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn fair_lock_is_released_by_a_panic() {
        let lock = FairLock::default();
        let failed = catch_unwind(AssertUnwindSafe(|| {
            let _guard = lock.lock();
            panic!("a simulated bug");
        }));
        assert!(failed.is_err());
        drop(lock.lock());
    }
}
