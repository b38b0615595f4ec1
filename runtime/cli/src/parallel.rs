//! Many items on several threads, results in the order of the items.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// Items that a thread takes at a time, so that it can work on them together.
pub const GROUP: usize = 64;
/// Items per thread, in groups, between two moments at which the threads wait for each other.
const PER_THREAD: usize = 8 * GROUP;
/// Bytes of items that end a group before it is full: long texts are divided among the threads one by one.
const GROUP_BYTES: usize = 1 << 12;
/// Bytes of items that are held at a time, unless a single one is larger.
const BYTES: usize = 1 << 23;

/// Returns the number of threads: `asked`, or as many as the process may use.
pub fn threads(asked: Option<u16>) -> usize {
    asked.map_or_else(|| thread::available_parallelism().map_or(1, NonZero::get), usize::from)
}

/// Works on `items` with one thread per worker, on at most `group` of them at a time, fewer if they are long; passes the results to `take` in the order of the items.
///
/// `work` returns a result for each item. With one worker the results of a group are taken before the next one is read. With several, at most
/// [`PER_THREAD`] items per worker and about [`BYTES`] bytes, as `bytes` counts them, are in memory. The results are the same for any number of
/// workers.
///
/// # Errors
/// That of an item, after the results of those before it; that of `take`.
pub fn in_order<I: Send, W: Send, R: Send>(
    workers: &mut [W],
    mut items: impl Iterator<Item = Result<I>>,
    group: usize,
    bytes: impl Fn(&I) -> usize,
    work: impl Fn(&mut W, Vec<I>) -> Vec<R> + Sync,
    mut take: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let mut ended = None;
    while ended.is_none() {
        let most = if workers.len() == 1 { group } else { PER_THREAD * workers.len() };
        let (mut groups, mut last, mut of_last) = (Vec::new(), Vec::new(), 0);
        let (mut read, mut held) = (0, 0);
        while ended.is_none() && read < most && held < BYTES {
            match items.next() {
                Some(Ok(item)) => {
                    let size = bytes(&item);
                    (read, held, of_last) = (read + 1, held + size, of_last + size);
                    last.push(item);
                }
                Some(Err(error)) => ended = Some(Err(error)),
                None => ended = Some(Ok(())),
            }
            if last.len() == group || of_last >= GROUP_BYTES {
                groups.push(std::mem::take(&mut last));
                of_last = 0;
            }
        }
        groups.push(last);
        if let [worker] = workers {
            groups.into_iter().flat_map(|items| work(worker, items)).try_for_each(&mut take)?;
            continue;
        }
        let mut results: Vec<Vec<R>> = groups.iter().map(|_| Vec::new()).collect();
        let open = Mutex::new(groups.into_iter().zip(&mut results));
        let (open, work) = (&open, &work);
        thread::scope(|scope| {
            let mut started = Vec::new();
            for worker in &mut *workers {
                started.push(scope.spawn(move || {
                    loop {
                        let next = open.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((items, place)) = next else { break };
                        *place = work(&mut *worker, items);
                    }
                }));
            }
            for thread in started {
                if let Err(panic) = thread.join() {
                    resume_unwind(panic);
                }
            }
        });
        results.into_iter().flatten().try_for_each(&mut take)?;
    }
    ended.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for (workers, group) in [(1, 1), (1, 7), (2, 64), (5, 1), (5, 10)] {
            let mut counts = vec![0usize; workers];
            let mut taken = Vec::new();
            let work = |count: &mut usize, items: Vec<u32>| {
                assert!(items.len() <= group);
                *count += items.len();
                items.into_iter().map(|item| item * 2).collect()
            };
            let take = |result| {
                taken.push(result);
                Ok(())
            };
            in_order(&mut counts, (0..3000u32).map(Ok), group, |_| 1, work, take).unwrap();
            assert_eq!(taken, (0..3000).map(|item| item * 2).collect::<Vec<_>>());
            assert_eq!(counts.iter().sum::<usize>(), 3000);
        }
    }

    #[test]
    fn an_error_ends_the_work_after_what_came_before() {
        for (workers, group) in [(1, 1), (1, 4), (3, 1), (3, 64)] {
            let mut taken = Vec::new();
            let items = (0..10u32).map(|item| if item == 7 { bail!("seven") } else { Ok(item) });
            let take = |item| {
                taken.push(item);
                Ok(())
            };
            let result = in_order(&mut vec![(); workers], items, group, |_| 1 << 30, |(), items| items, take);
            assert_eq!((result.unwrap_err().to_string().as_str(), taken.len()), ("seven", 7));
            let all = (0..10u32).map(Ok);
            let full = in_order(&mut vec![(); workers], all, group, |_| 1, |(), items| items, |_| bail!("full"));
            assert_eq!(full.unwrap_err().to_string(), "full");
        }
    }

    #[test]
    fn long_items_are_divided_among_the_threads() {
        let work = |(): &mut (), items: Vec<usize>| vec![items.len()];
        let mut groups = Vec::new();
        let take = |items| {
            groups.push(items);
            Ok(())
        };
        let sizes = [GROUP_BYTES, GROUP_BYTES, 1, 1, GROUP_BYTES, 1];
        in_order(&mut [(), ()], sizes.into_iter().map(Ok), GROUP, |&size| size, work, take).unwrap();
        assert_eq!(groups, [1, 1, 3, 1]);
    }

    #[test]
    fn with_one_worker_a_result_is_taken_before_the_next_item_is_read() {
        let read = std::cell::Cell::new(0);
        let items = (0..5u32).map(|item| {
            read.set(item);
            Ok(item)
        });
        let take = |item| {
            assert_eq!(item, read.get());
            Ok(())
        };
        in_order(&mut [()], items, 1, |_| 1, |(), items| items, take).unwrap();
    }
}
