//! Many items on several threads, results in the order of the items.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// Items per thread between two moments at which the threads wait for each other.
const PER_THREAD: usize = 256;
/// Bytes of items that are held at a time, unless a single one is larger.
const BYTES: usize = 1 << 23;

/// Returns the number of threads: `asked`, or as many as the process may use.
pub fn threads(asked: Option<u16>) -> usize {
    asked.map_or_else(|| thread::available_parallelism().map_or(1, NonZero::get), usize::from)
}

/// Works on `items` with one thread per worker; passes the results to `take` in the order of the items.
///
/// With one worker each result is taken before the next item is read. With several, at most [`PER_THREAD`] items per worker and
/// about [`BYTES`] bytes, as `bytes` counts them, are in memory. The results are the same for any number of workers.
///
/// # Errors
/// That of an item, after the results of those before it; that of `take`.
pub fn in_order<I: Send, W: Send, R: Send>(
    workers: &mut [W],
    mut items: impl Iterator<Item = Result<I>>,
    bytes: impl Fn(&I) -> usize,
    work: impl Fn(&mut W, I) -> R + Sync,
    mut take: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    if let [worker] = workers {
        return items.try_for_each(|item| take(work(worker, item?)));
    }
    let mut ended = None;
    while ended.is_none() {
        let (mut block, mut held) = (Vec::new(), 0);
        while ended.is_none() && block.len() < PER_THREAD * workers.len() && held < BYTES {
            match items.next() {
                Some(Ok(item)) => {
                    held += bytes(&item);
                    block.push(item);
                }
                Some(Err(error)) => ended = Some(Err(error)),
                None => ended = Some(Ok(())),
            }
        }
        let mut results: Vec<Option<R>> = block.iter().map(|_| None).collect();
        let open = Mutex::new(block.into_iter().zip(&mut results));
        let (open, work) = (&open, &work);
        thread::scope(|scope| {
            let mut started = Vec::new();
            for worker in &mut *workers {
                started.push(scope.spawn(move || {
                    loop {
                        let next = open.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((item, place)) = next else { break };
                        *place = Some(work(&mut *worker, item));
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
        for workers in [1, 2, 5] {
            let mut counts = vec![0usize; workers];
            let mut taken = Vec::new();
            let items = (0..3000u32).map(Ok);
            let work = |count: &mut usize, item: u32| {
                *count += 1;
                item * 2
            };
            in_order(
                &mut counts,
                items,
                |_| 1,
                work,
                |result| {
                    taken.push(result);
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(taken, (0..3000).map(|item| item * 2).collect::<Vec<_>>());
            assert_eq!(counts.iter().sum::<usize>(), 3000);
        }
    }

    #[test]
    fn an_error_ends_the_work_after_what_came_before() {
        for workers in [1, 3] {
            let mut taken = Vec::new();
            let items = (0..10u32).map(|item| if item == 7 { bail!("seven") } else { Ok(item) });
            let result = in_order(
                &mut vec![(); workers],
                items,
                |_| 1 << 30,
                |(), item| item,
                |item| {
                    taken.push(item);
                    Ok(())
                },
            );
            assert_eq!((result.unwrap_err().to_string().as_str(), taken.len()), ("seven", 7));
            let full = in_order(&mut vec![(); workers], (0..10u32).map(Ok), |_| 1, |(), item| item, |_| bail!("full"));
            assert_eq!(full.unwrap_err().to_string(), "full");
        }
    }
}
