//! Histories that nobody would think of.

use tokio::time::{Instant, sleep};
use tower_token::{State, StoreError};

use crate::scene::{Fault, LIFE, MINUTE, Process, SECOND, Scene, credential, family};

/// What a history may be made of.
#[derive(Clone, Copy, PartialEq)]
enum Weather {
    /// Nothing that has to cost a second presentation.
    Fair,
    /// Answers are lost, processes killed and stopped, the store is emptied.
    Foul,
}

struct History {
    scene: Scene,
    weather: Weather,
    dice: fastrand::Rng,
    fleet: Vec<Process>,
    /// Those that the world does not hear of for a while.
    stalled: Vec<Process>,
    families: u64,
    emptied: bool,
}

impl History {
    fn new(seed: u64, weather: Weather) -> Self {
        let scene = Scene::new();
        if weather == Weather::Foul {
            scene.issuer.grants_grace();
        }
        scene.issuer.takes(SECOND / 3);
        Self {
            fleet: vec![scene.process()],
            scene,
            weather,
            dice: fastrand::Rng::with_seed(seed),
            stalled: Vec::new(),
            families: 0,
            emptied: false,
        }
    }

    fn somebody(&mut self) -> &Process {
        let nth = self.dice.usize(..self.fleet.len());
        &self.fleet[nth]
    }

    fn leaves(&mut self) -> Option<Process> {
        let nth = self.dice.usize(..self.fleet.len());
        (self.fleet.len() > 1).then(|| self.fleet.swap_remove(nth))
    }

    async fn step(&mut self) {
        match self.dice.u8(..100) {
            0..=9 if self.fleet.len() < 4 => self.fleet.push(self.scene.process()),
            10..=14 => drop(self.leaves()),
            15..=39 => drop(self.somebody().asks()),
            40..=49 => {
                let tokens = self.somebody().tokens.clone();
                tokio::spawn(async move { tokens.refresh().await.map(drop) });
            }
            50..=54 => {
                let gone = StoreError::unavailable("gone");
                _ = self.somebody().store.fail(gone);
            }
            55..=56 => _ = self.somebody().store.hang(),
            57..=58 => _ = self.somebody().store.delay(SECOND),
            59..=73 => self.fleet.iter().for_each(|process| _ = process.store.heal()),
            74..=77 => self.scene.issuer.next(&[Fault::Unavailable]),
            78..=79 => self.scene.issuer.next(&[Fault::LostBefore]),
            80 => self.somebody().tokens.sign_out(),
            81..=83 => {
                self.families += 1;
                let begins = credential(family(self.families));
                self.somebody().tokens.install(begins).unwrap();
            }
            84..=86 => sleep(LIFE / 3).await,
            _ if self.weather == Weather::Fair => {}
            87..=89 => self.scene.issuer.next(&[Fault::LostAfter]),
            90..=92 => {
                if let Some(process) = self.leaves() {
                    process.kill();
                }
            }
            93..=95 => {
                if let Some(process) = self.leaves() {
                    process.stall();
                    self.stalled.push(process);
                }
            }
            96..=98 => {
                if let Some(process) = self.stalled.pop() {
                    process.resume();
                    self.fleet.push(process);
                }
            }
            _ => {
                self.emptied = true;
                self.scene.store.lose();
            }
        }
        sleep(SECOND * self.dice.u32(..4) / 2).await;
    }

    /// What holds after each step.
    fn holds(&self, at: &str) {
        let issuer = &self.scene.issuer;
        if self.weather == Weather::Fair {
            assert_eq!(issuer.presented_again(), 0, "{at}");
            assert!(issuer.most_in_the_air() <= 1, "{at}");
        }
        assert!(
            self.emptied || self.scene.never_went_back(),
            "{at}: {:?}",
            self.scene.store.history()
        );
        for process in &self.fleet {
            if let Some(token) = process.tokens.current() {
                assert!(issuer.is_alive(token.secret()), "{at}: a dead token");
            }
        }
    }

    /// Everything is well again.
    async fn ends(mut self, at: &str) {
        for process in self.stalled.drain(..) {
            process.resume();
            self.fleet.push(process);
        }
        for process in &self.fleet {
            process.resume();
        }
        self.scene.issuer.heals();
        // A lease ends, and whatever may be spent has had its minute.
        sleep(2 * MINUTE).await;
        if self.fleet[0].tokens.get().await.is_err() {
            self.families += 1;
            let begins = credential(family(self.families));
            self.fleet[0].tokens.install(begins).unwrap();
        }
        sleep(5 * SECOND).await;
        self.fleet.push(self.scene.process());
        let newest = self.fleet[0].tokens.get().await;
        let newest = newest
            .unwrap_or_else(|error| panic!("{at}: {error}"))
            .secret()
            .to_owned();
        sleep(2 * SECOND).await;
        for process in &self.fleet {
            assert!(process.tokens.status().state != State::SignedOut, "{at}");
            assert_eq!(process.secret().await, newest, "{at}");
            assert!(!process.tokens.status().undurable, "{at}");
        }
        let kept = self.scene.store.record().unwrap();
        assert_eq!(kept.token().unwrap().secret(), newest, "{at}");
        self.holds(at);
    }
}

/// Each of 200 steps; `TOWER_TOKEN_FULL` makes them 200.
async fn histories(weather: Weather) {
    let seeds = match std::env::var_os("TOWER_TOKEN_FULL") {
        Some(_) => 200,
        None => 3,
    };
    for seed in 0..seeds {
        let mut history = History::new(seed, weather);
        let began = Instant::now();
        for step in 0..200 {
            history.step().await;
            history.holds(&format!("seed {seed}, step {step}, after {:?}", began.elapsed()));
        }
        history.ends(&format!("seed {seed}, at the end")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_fair_weather_nothing_is_ever_presented_twice() {
    histories(Weather::Fair).await;
}

#[tokio::test(start_paused = true)]
async fn in_foul_weather_all_end_on_the_newest_token() {
    histories(Weather::Foul).await;
}
