//! What may be in a history.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use tower_token::IfLost;

#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) if_lost: IfLost,
    /// Whether every token brings a new credential.
    pub(crate) rotates: bool,
    /// What the issuer answers when nothing else is scripted.
    pub(crate) habit: Answer,
    pub(crate) acts: Vec<Act>,
}

#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Time goes by.
    Wait(Duration),
    /// Tasks run, and no time goes by.
    Yield,
    /// The wall clock is set, or the machine was suspended.
    Step(i64),
    Get,
    /// A request through the layer.
    Call,
    /// A caller that waits goes away.
    Leave(usize),
    /// So many tokens ago.
    Refuse(usize),
    Refresh,
    Install,
    SignOut,
    /// The next answers of the issuer.
    Script(Vec<Answer>),
    /// The API accepts the newest token no more.
    Revoke,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) what: What,
    pub(crate) after: Duration,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A token that lives so long.
    Mint(Duration),
    /// The one before, as long as it lives; else a new one.
    Repeat,
    NoExpiry,
    DeadOnArrival,
    Empty,
    Transient,
    Throttled(Option<u64>),
    Terminal,
    NeedsInteraction,
    Lost,
    Panic,
    Never,
}

pub(crate) fn histories() -> impl Strategy<Value = History> {
    let if_lost = prop_oneof![
        4 => Just(IfLost::ReplayOnce),
        2 => Just(IfLost::NeverReplay),
        1 => (0..40_u64).prop_map(|seconds| IfLost::ReplayWithin(Duration::from_secs(seconds))),
        3 => Just(IfLost::Idempotent),
    ];
    (if_lost, any::<bool>(), habits(), vec(acts(), 1..50)).prop_map(|(if_lost, rotates, habit, acts)| History {
        if_lost,
        rotates,
        habit,
        acts,
    })
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        14 => times().prop_map(Act::Wait),
        4 => Just(Act::Yield),
        3 => steps().prop_map(Act::Step),
        14 => Just(Act::Get),
        8 => Just(Act::Call),
        2 => (0..4_usize).prop_map(Act::Leave),
        6 => prop_oneof![3 => Just(0_usize), 1 => 1..4_usize].prop_map(Act::Refuse),
        2 => Just(Act::Refresh),
        1 => Just(Act::Install),
        1 => Just(Act::SignOut),
        8 => vec(answers(), 1..5).prop_map(Act::Script),
        2 => Just(Act::Revoke),
    ]
}

/// From a millisecond to some hours, alike in magnitude; often at a border of the engine's.
fn times() -> impl Strategy<Value = Duration> {
    let border = prop::sample::select(vec![
        250_u64, 1_000, 1_200, 2_400, 30_000, 60_000, 144_000, 600_000, 3_600_000,
    ]);
    prop_oneof![
        2 => (0.0..16.5_f64).prop_map(|power| power.exp() as u64 + 1),
        1 => (border, -1..=1_i64).prop_map(|(border, off)| border.saturating_add_signed(off)),
    ]
    .prop_map(Duration::from_millis)
}

fn steps() -> impl Strategy<Value = i64> {
    let size = (0.0..11.4_f64).prop_map(|power| power.exp() as i64);
    (size, any::<bool>()).prop_map(|(size, forward)| if forward { size } else { -size })
}

fn lives() -> impl Strategy<Value = Duration> {
    (0.0..8.9_f64).prop_map(|power| Duration::from_secs(power.exp() as u64))
}

fn latencies() -> impl Strategy<Value = Duration> {
    let millis = prop_oneof![4 => Just(0_u64), 2 => 1..3_000_u64, 1 => 3_000..40_000_u64];
    millis.prop_map(Duration::from_millis)
}

fn answers() -> impl Strategy<Value = Answer> {
    let what = prop_oneof![
        6 => lives().prop_map(What::Mint),
        2 => Just(What::Repeat),
        1 => Just(What::NoExpiry),
        1 => Just(What::DeadOnArrival),
        1 => Just(What::Empty),
        4 => Just(What::Transient),
        2 => prop::option::of(0..200_u64).prop_map(What::Throttled),
        1 => Just(What::Terminal),
        1 => Just(What::NeedsInteraction),
        4 => Just(What::Lost),
        1 => Just(What::Panic),
        1 => Just(What::Never),
    ];
    (what, latencies()).prop_map(|(what, after)| Answer { what, after })
}

/// Mostly well; now and then an outage that ends only when the history does.
fn habits() -> impl Strategy<Value = Answer> {
    let well = (lives().prop_map(What::Mint), latencies()).prop_map(|(what, after)| Answer { what, after });
    prop_oneof![5 => well, 1 => answers()]
}
