//! Does jobs one after another on a thread beside, and goes on on another thread where one of them hangs.
//!
//! A hung job keeps its thread and is not begun again until it has come back; the others lose no more than the patience
//! that was spent on it. So one broken sensor costs itself alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::place::locked;

/// Jobs that may hang at once; each keeps a thread.
const STUCK_MAX: usize = 32;

/// A job: its name, and what to do.
pub(super) type Job<T> = (String, Box<dyn FnOnce() -> T + Send>);

/// Remembers which jobs hang.
#[derive(Debug, Clone, Default)]
pub(super) struct Crew {
    stuck: Arc<Mutex<BTreeSet<String>>>,
}

/// The jobs of one round.
struct Round<T> {
    jobs: VecDeque<Job<T>>,
    /// Name of the job that is being done.
    current: Option<String>,
    /// The thread whose turn it is; one that finds another number here was given up.
    turn: u64,
}

impl Crew {
    /// Does the jobs and gives the answers of those that came back within `patience`, as far as `time` allowed. Those
    /// that hang from an earlier round are not begun.
    pub(super) fn work<T: Send + 'static>(
        &self,
        jobs: Vec<Job<T>>,
        patience: Duration,
        time: Duration,
    ) -> BTreeMap<String, T> {
        let stuck = locked(&self.stuck).clone();
        let jobs = jobs.into_iter().filter(|(name, _)| !stuck.contains(name)).collect();
        let round = Arc::new(Mutex::new(Round { jobs, current: None, turn: 0 }));
        let (sender, answers) = channel();
        let (end, mut done) = (Instant::now() + time, BTreeMap::new());
        if !self.go_on(&round, 0, &sender) {
            return done;
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match answers.recv_timeout(patience.min(left)) {
                Ok(Some((name, value))) => drop(done.insert(name, value)),
                Ok(None) | Err(RecvTimeoutError::Disconnected) => return done,
                Err(RecvTimeoutError::Timeout) => {
                    let Some(turn) = self.give_up(&round) else { continue };
                    let has_time = Instant::now() < end && locked(&self.stuck).len() < STUCK_MAX;
                    if !has_time || !self.go_on(&round, turn, &sender) {
                        return done;
                    }
                }
            }
        }
    }

    /// Gives up the job that is being done, and says whose turn it is then; `None` where it came back just now.
    fn give_up<T>(&self, round: &Mutex<Round<T>>) -> Option<u64> {
        let mut round = locked(round);
        let name = round.current.take()?;
        round.turn += 1;
        locked(&self.stuck).insert(name);
        Some(round.turn)
    }

    /// Starts a thread that does the jobs that are left; `false` where there is none to be had.
    fn go_on<T: Send + 'static>(
        &self,
        round: &Arc<Mutex<Round<T>>>,
        turn: u64,
        answers: &Sender<Option<(String, T)>>,
    ) -> bool {
        let (crew, round, answers) = (self.clone(), Arc::clone(round), answers.clone());
        let thread = std::thread::Builder::new().name("hwmon reads".to_owned());
        let spawned = thread.spawn(move || {
            while let Some((name, job)) = next(&round, turn) {
                let value = job();
                let mut round = locked(&round);
                if round.turn != turn {
                    locked(&crew.stuck).remove(&name);
                    return;
                }
                round.current = None;
                // Whoever asked may be gone; then nobody misses the answer.
                let _ = answers.send(Some((name, value)));
            }
            let _ = answers.send(None);
        });
        if let Err(error) = &spawned {
            tracing::error!("reading hwmon gets no thread: {error}");
        }
        spawned.is_ok()
    }
}

/// Takes the next job; none where it is another thread's turn.
fn next<T>(round: &Mutex<Round<T>>, turn: u64) -> Option<Job<T>> {
    let mut round = locked(round);
    let job = if round.turn == turn { round.jobs.pop_front() } else { None }?;
    round.current = Some(job.0.clone());
    Some(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(200);

    fn job(name: &str, work: impl FnOnce() -> i32 + Send + 'static) -> Job<i32> {
        (name.to_owned(), Box::new(work))
    }

    fn names(done: &BTreeMap<String, i32>) -> Vec<&str> {
        done.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_job_that_hangs_costs_itself_and_is_begun_again_once_it_is_back() {
        let crew = Crew::default();
        let (release, hanging) = channel::<()>();
        let hang = move || {
            let _ = hanging.recv();
            1
        };
        let jobs = vec![job("a", || 1), job("b", hang), job("c", || 3)];
        let done = crew.work(jobs, PATIENCE, 10 * PATIENCE);
        assert_eq!(names(&done), ["a", "c"]);
        let again = || vec![job("a", || 1), job("b", || 2), job("c", || 3)];
        assert_eq!(names(&crew.work(again(), PATIENCE, 10 * PATIENCE)), ["a", "c"], "b still hangs");
        release.send(()).unwrap();
        let until = Instant::now() + 100 * PATIENCE;
        while !locked(&crew.stuck).is_empty() && Instant::now() < until {
            std::thread::sleep(PATIENCE / 20);
        }
        assert_eq!(names(&crew.work(again(), PATIENCE, 10 * PATIENCE)), ["a", "b", "c"]);
    }
}
