//! Specs of the budget: permits, lines, the reserve.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn memory(bytes: u64) -> Memory {
    Memory::new(MemorySize::new(bytes).unwrap(), 100 << 20)
}

/// Whether a wait is over at the first look.
fn is_ready<T>(future: impl Future<Output = T>) -> bool {
    std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// What comes of a wait at the first look.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn the_shares_are_the_budget_and_a_frame_that_moves_fits_the_reserve() {
    for (budget, frame) in [(32 * MIB, 4 * MIB), (64 * MIB, 20 * MIB), (6144 * MIB, 100 * MIB)] {
        let Memory { shares, .. } = memory(budget);
        let Shares { reserve, small, calls, large, answers, pending, scratch, kept, members } = shares;

        let all = [OWN_BYTES, reserve, small, calls, large, answers, pending, scratch, kept, members];
        assert_eq!(all.iter().sum::<u64>(), budget);
        assert_eq!(u64::from(shares.frame_bytes_max()), frame);
        assert!(large >= LARGE_BYTES_MIN, "{shares:?}");
    }
}

#[test]
fn one_decompression_fits_its_share_and_may_make_more_than_two_batches_however_small_the_budget_is() {
    for (budget, bytes_max) in [(32 * MIB, 5 * MIB / 2), (64 * MIB, 5 * MIB / 2), (6144 * MIB, 64 * MIB)] {
        let memory = memory(budget);

        assert_eq!(memory.decode_bytes_max() as u64, bytes_max);
        assert!(DECODE_GROWTH * bytes_max <= memory.shares.scratch, "{:?}", memory.shares);
        assert_eq!(memory.limits_decodes(), bytes_max < DECODE_BYTES_MAX);
    }
}

#[tokio::test]
async fn what_is_taken_is_counted_and_given_back() {
    let memory = memory(64 * MIB);

    let mut frame = memory.large_frame();
    memory.extend(&mut frame, 1 << 20).await;
    memory.extend(&mut frame, 1).await;
    frame.give_back(512 << 10);
    let answer = memory.answer(3000).await;
    assert_eq!(memory.reading().used_bytes, (512 << 10) + 1024 + 3072);
    drop((frame, answer));

    let reading = memory.reading();
    assert_eq!((reading.used_bytes, reading.peak_bytes), (0, MIB + 1024));
}

#[tokio::test]
async fn an_answer_is_charged_for_what_it_is() {
    let memory = memory(64 * MIB);
    let mut answer = memory.answer(100 << 10).await;

    answer.settle(10 << 10);
    assert_eq!(
        (answer.bytes(), memory.answers.free_bytes()),
        (10 << 10, memory.answers.bytes() - (10 << 10))
    );
    // It turned out larger than it was thought: it is there, so it counts.
    answer.settle(200 << 10);
    assert_eq!((answer.bytes(), memory.reading().used_bytes), (200 << 10, 200 << 10));
    drop(answer);

    assert_eq!((memory.reading().used_bytes, memory.answers.free_bytes()), (0, memory.answers.bytes()));
}

#[tokio::test]
async fn an_answer_larger_than_its_share_takes_all_of_it_and_no_more() {
    let memory = memory(64 * MIB);

    let all = memory.answer(u64::MAX).await;

    assert_eq!(all.bytes(), memory.answers.bytes());
    assert!(!is_ready(memory.answer(1)));
    drop(all);
    assert!(is_ready(memory.answer(1)));
}

#[tokio::test]
async fn whoever_asks_for_much_is_not_overtaken_by_who_asks_for_little() {
    let memory = memory(64 * MIB);
    let held = memory.answer(1 << 20).await;
    let mut much = Box::pin(memory.answer(u64::MAX));
    let mut little = Box::pin(memory.answer(1));
    let mut cx = Context::from_waker(Waker::noop());

    assert!(much.as_mut().poll(&mut cx).is_pending());
    assert!(little.as_mut().poll(&mut cx).is_pending(), "there is enough for it, but it is not its turn");
    assert_eq!(memory.reading().waiting, 2);
    drop(held);
    let Poll::Ready(much) = much.as_mut().poll(&mut cx) else { panic!("it is its turn") };
    assert!(little.as_mut().poll(&mut cx).is_pending());
    drop(much);

    assert!(little.as_mut().poll(&mut cx).is_ready());
    assert_eq!(memory.reading().waiting, 0);
}

#[tokio::test]
async fn a_small_frame_does_not_wait_for_large_ones_nor_an_answer() {
    let memory = memory(32 * MIB);
    let mut first = memory.large_frame();
    let all = memory.large.bytes() as usize;
    memory.extend(&mut first, all).await;
    let mut second = memory.large_frame();
    memory.extend(&mut second, all).await;
    assert!(second.pass.is_some());
    let mut third = memory.large_frame();
    assert!(!is_ready(memory.extend(&mut third, 1)));

    assert!(is_ready(memory.small_frame(FrameKind::Produce)));
    assert!(is_ready(memory.answer(1 << 20)));
    assert!(is_ready(memory.decode()));
}

#[tokio::test]
async fn produce_requests_that_wait_for_the_disk_leave_room_for_calls_and_answers() {
    let memory = memory(32 * MIB);
    let mut held = Vec::new();
    while let Poll::Ready(charge) = poll(&mut Box::pin(memory.small_frame(FrameKind::Produce))) {
        held.push(charge);
    }
    while let Poll::Ready(charge) = poll(&mut Box::pin(memory.pending(1_000))) {
        held.push(charge);
    }

    let call = memory.small_frame(FrameKind::Call).await;
    let answer = memory.answer(100_000).await;

    assert!(!is_ready(memory.small_frame(FrameKind::Produce)));
    let later = Instant::now() + Duration::from_secs(60);
    let mut waiting = Box::pin(memory.small_frame(FrameKind::Produce));
    assert!(poll(&mut waiting).is_pending() && memory.is_short(FrameShare::Small, later));
    drop((waiting, call, answer, held));
    assert_eq!(memory.reading().used_bytes, 0);
}

#[tokio::test]
async fn memory_is_short_once_somebody_has_waited_for_a_while() {
    let memory = memory(32 * MIB);
    let (mut first, mut second, mut third) =
        (memory.large_frame(), memory.large_frame(), memory.large_frame());
    let all = memory.large.bytes() as usize;
    memory.extend(&mut first, all).await;
    memory.extend(&mut second, all).await;
    let later = Instant::now() + Duration::from_secs(60);
    assert!(!memory.is_short(FrameShare::Large, later));

    let mut waiting = Box::pin(memory.extend(&mut third, 1));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());

    assert!(memory.is_short(FrameShare::Large, later));
    assert!(!memory.is_short(FrameShare::Small, later), "who holds small frames is in nobody's way");
    assert!(!memory.is_short(FrameShare::Large, Instant::now()));
    drop(waiting);
    assert!(!memory.is_short(FrameShare::Large, later));
}

/// What one connection does: how it receives a frame, and after how many looks it is cut, if it is.
#[derive(Clone, Debug)]
struct Script {
    steps: Vec<usize>,
    cut_after: Option<usize>,
}

fn script() -> impl Strategy<Value = Script> {
    let step = prop_oneof![1_usize..5_000, 60_000_usize..70_000, 500_000_usize..1_500_000];
    let steps = prop::collection::vec(step, 1..8);
    (steps, prop::option::weighted(0.3, 0_usize..40)).prop_map(|(mut steps, cut_after)| {
        let mut left = memory(32 * MIB).frame_bytes_max() as usize;
        steps.iter_mut().for_each(|step| {
            *step = (*step).min(left);
            left -= *step;
        });
        Script { steps, cut_after }
    })
}

fn lanes(memory: &Memory) -> [&Lane; 6] {
    [&memory.small, &memory.calls, &memory.large, &memory.answers, &memory.pending, &memory.scratch]
}

fn check(memory: &Memory) {
    let (reading, shares) = (memory.reading(), memory.shares);
    let handed_out: u64 = lanes(memory).map(|lane| lane.bytes() - lane.free_bytes()).iter().sum();
    assert!(reading.used_bytes <= handed_out + shares.reserve, "{reading:?}, {handed_out} handed out");
    assert!(reading.peak_bytes <= reading.budget_bytes, "{reading:?}");
}

/// A frame that arrives in steps while its connection holds a small one, then its answer, then something decoded.
async fn receive(memory: Arc<Memory>, steps: Vec<usize>) {
    let small = memory.small_frame(FrameKind::Call).await;
    let mut frame = memory.large_frame();
    for (number, step) in steps.into_iter().enumerate() {
        memory.extend(&mut frame, step).await;
        if number == 0 {
            frame.give_back(1024);
        }
        check(&memory);
        tokio::task::yield_now().await;
    }
    drop(small);
    let (answer, pending) = (memory.answer(300_000).await, memory.pending(1_000).await);
    let decoded = memory.decode().await;
    check(&memory);
    tokio::task::yield_now().await;
    drop((frame, decoded));
    tokio::task::yield_now().await;
    drop((answer, pending));
}

/// All connections of the scripts at once; those that are not cut must end.
async fn run(scripts: Vec<Script>) {
    let memory = Arc::new(memory(32 * MIB));
    let mut connections: Vec<_> = scripts
        .into_iter()
        .map(|Script { steps, cut_after }| (tokio::spawn(receive(Arc::clone(&memory), steps)), cut_after))
        .collect();
    for look in 0..40 {
        for (connection, cut_after) in &connections {
            if *cut_after == Some(look) {
                connection.abort();
            }
        }
        check(&memory);
        tokio::task::yield_now().await;
    }
    for (connection, cut_after) in connections.drain(..) {
        let ended = tokio::time::timeout(Duration::from_secs(60), connection).await;
        let ended = ended.expect("a connection waits for ever");
        assert!(ended.is_ok() || cut_after.is_some(), "{ended:?}");
    }
    let reading = memory.reading();
    assert_eq!((reading.used_bytes, reading.waiting), (0, 0));
    for lane in lanes(&memory).into_iter().chain([&memory.pass]) {
        assert_eq!(lane.free_bytes(), lane.bytes(), "something was not given back");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_budget_is_kept_everybody_ends_and_everything_comes_back(scripts in prop::collection::vec(script(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(scripts));
    }
}
