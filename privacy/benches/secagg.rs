//! What secure aggregation costs, on one core: a client's steps, the server's, and the masks beside what the processor can do.
//!
//! `taskset -c 0 cargo bench -p skep-privacy --bench secagg`. Seconds are those that the thread had the core, where the system
//! tells them (Linux), and the best of several passes. Lines in brackets are parts of the line above. Public-key work is
//! everything that does not grow with the vector. `-- n=1000` adds the large cohort,
//! whose thousand clients take four minutes of one core.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use ring::signature::Ed25519KeyPair;
use skep_privacy::grid::{Grid, PrivateGrid};
use skep_privacy::prg::{Key, PrgId, Purpose};
use skep_privacy::quantities::{ClipNorm, CorruptFraction, DropoutFraction};
use skep_privacy::secagg::{Identity, Params, Party, Peer, Session, Shape, client, server};
use skep_privacy::update::QuantizedUpdate;

fn main() {
    masks();
    let wanted = std::env::args().any(|argument| argument == "n=1000");
    client_and_server("n=10, d=1M, complete", complete(10), 1_000_000, 0);
    client_and_server("n=50, d=100k, complete", complete(50), 100_000, 0);
    client_and_server("n=100, d=100k, complete", complete(100), 100_000, 0);
    client_and_server("n=100, d=100k, complete, 10 drop", complete(100), 100_000, 10);
    client_and_server("n=100, d=100k, sparse", sparse(100), 100_000, 0);
    if wanted {
        client_and_server("n=1000, d=1M, sparse, 50 drop", sparse(1000), 1_000_000, 50);
    }
}

fn complete(cohort: u32) -> Params {
    Params::plan(cohort, 10, gamma(), delta()).expect("safe")
}

fn sparse(cohort: u32) -> Params {
    Params::plan_sparse(cohort, 10, gamma(), delta()).expect("safe")
}

fn gamma() -> CorruptFraction {
    CorruptFraction::new(0.1).expect("below 1")
}

fn delta() -> DropoutFraction {
    DropoutFraction::new(0.1).expect("below 1")
}

/// Bits of a number on the wire.
const BITS: u32 = 20;

struct Bench {
    session: Session,
    /// That of the client that is timed: on a device of its own it tests every signature itself.
    own_session: Session,
    identities: BTreeMap<Party, Ed25519KeyPair>,
    update: QuantizedUpdate,
    grid: Grid,
    /// Seconds of the first client and of the server, by step.
    client: Vec<(&'static str, f64)>,
    server: Vec<(&'static str, f64)>,
    uploaded: usize,
}

fn client_and_server(name: &str, params: Params, len: usize, dropped: usize) {
    let passes = if params.cohort() >= 1000 { 1 } else { 5 };
    let runs: Vec<Bench> = (0..passes).map(|_| Bench::run(params, len, dropped)).collect();
    println!("\n{name} ({params:?}, {BITS} bits)");
    let total = |steps: &[(&str, f64)]| steps.iter().map(|(_, seconds)| seconds).sum::<f64>() * 1e3;
    for (who, steps) in
        [("client", (|run| &run.client) as fn(&Bench) -> &Vec<_>), ("server", |run| &run.server)]
    {
        let best = runs.iter().map(steps).min_by(|a, b| total(a).total_cmp(&total(b))).expect("some passes");
        println!("  {who:<38} {:>10.2} ms", total(best));
        for (step, seconds) in best {
            println!("    [{step:<36}] {:>9.2} ms", seconds * 1e3);
        }
    }
    let packed = Shape { len, bits: BITS, generator: PrgId::Aes256Ctr }.packed_len();
    println!(
        "  {:<38} {:>10} B ({packed} B masked vector, {:.1} % more)",
        "client sends",
        runs[0].uploaded,
        (runs[0].uploaded - packed) as f64 / packed as f64 * 100.0
    );
}

impl Bench {
    fn new(params: Params, len: usize) -> Self {
        let parties: Vec<Party> = (0..u64::from(params.cohort())).map(Party).collect();
        let identity = |party: &Party| {
            let seed = Key::from_seed(party.0).derive(Purpose::Client, 0, 1);
            (*party, Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("32 bytes"))
        };
        let identities = parties.iter().map(identity).collect();
        let shape = Shape { len, bits: BITS, generator: PrgId::Aes256Ctr };
        let session =
            || Session::new(&[1; 32], &[2; 32], params, shape, parties.clone()).expect("consistent");
        let (session, own_session) = (session(), session());
        let grid = PrivateGrid::new(ClipNorm::ONE, len, params.cohort()).expect("in range").into();
        let update = QuantizedUpdate::verify(vec![3; len], &grid).expect("short");
        Self {
            session,
            own_session,
            identities,
            update,
            grid,
            client: Vec::new(),
            server: Vec::new(),
            uploaded: 0,
        }
    }

    /// The whole session. The first client is timed, and all of the server.
    fn run(params: Params, len: usize, dropped: usize) -> Self {
        let mut this = Self::new(params, len);
        let session = this.session.clone();
        let rng = |party: Party, step| Key::from_seed(party.0).derive(Purpose::Mask, step, 0).stream();
        let first = Party(0);
        let mut directory = server::Directory::new(&session);
        let (mut steps, mut adverts) = (BTreeMap::new(), Vec::new());
        for (&party, identity) in &this.identities {
            let session = if party == first { &this.own_session } else { &session };
            let start = Cpu::now();
            let (step, advert) =
                client::advertise(session, party, &[0; 32], identity, &mut rng(party, 1)).expect("a member");
            if party == first {
                this.client.push(("keys", start.seconds()));
                this.uploaded += advert.len();
            }
            steps.insert(party, step);
            adverts.push((party, identity.public_key(), advert));
        }
        let start = Cpu::now();
        for (party, identity, advert) in &adverts {
            let peer = Peer { party: *party, identity: *identity, advert };
            directory.accept(&peer, &[0; 32]).expect("genuine");
        }
        let mut mailbox = directory.close().expect("enough");
        this.server.push(("keys", start.seconds()));
        let mut shared = BTreeMap::new();
        let mut routing = 0.0;
        for (party, step) in steps {
            let start = Cpu::now();
            let peers = mailbox.peers(party);
            routing += start.seconds();
            let start = Cpu::now();
            let (step, envelopes) = step.share(&peers, &mut rng(party, 2)).expect("genuine");
            if party == first {
                this.client.push(("shares", start.seconds()));
                this.uploaded += envelopes.iter().map(|envelope| 8 + envelope.sealed.len()).sum::<usize>();
            }
            let start = Cpu::now();
            mailbox.accept(party, envelopes).expect("complete");
            routing += start.seconds();
            shared.insert(party, step);
        }
        let start = Cpu::now();
        let mut input = mailbox.close().expect("enough");
        this.server.push(("shares", routing + start.seconds()));
        let names = input.shared();
        let mut masked = BTreeMap::new();
        let mut adding = 0.0;
        for (party, step) in shared.into_iter().take(names.len() - dropped) {
            let start = Cpu::now();
            let step = step.receive(&names, input.inbox(party)).expect("fits");
            let received = start.seconds();
            let start = Cpu::now();
            let (step, update) = step.mask(&this.update).expect("fits");
            if party == first {
                this.client.push(("receive", received));
                this.client.push(("mask and pack", start.seconds()));
                this.uploaded += update.as_bytes().len();
            }
            let start = Cpu::now();
            input.commit(party, update.as_bytes()).expect("fits");
            adding += start.seconds();
            masked.insert(party, step);
        }
        this.server.push(("add masked vectors", adding));
        this.finish(input, masked, first);
        this
    }

    fn finish(&mut self, input: server::Input, masked: BTreeMap<Party, client::Masked>, first: Party) {
        let start = Cpu::now();
        let mut consistency = input.close().expect("enough");
        let names = consistency.survivors();
        let mut agreeing = start.seconds();
        let mut signed = BTreeMap::new();
        for (party, step) in masked {
            let start = Cpu::now();
            let (step, signature) = step.sign(&names, &self.identities[&party]).expect("true");
            if party == first {
                self.client.push(("sign survivors", start.seconds()));
                self.uploaded += signature.len();
            }
            let start = Cpu::now();
            consistency.accept(party, &signature).expect("genuine");
            agreeing += start.seconds();
            signed.insert(party, step);
        }
        self.server.push(("consistency", agreeing));
        let mut unmasking = consistency.close().expect("enough");
        let mut revealing = 0.0;
        for (party, step) in signed {
            let start = Cpu::now();
            let consents = unmasking.consents(party);
            revealing += start.seconds();
            let start = Cpu::now();
            let revealed = step.reveal(&consents).expect("agreed");
            if party == first {
                self.client.push(("reveal", start.seconds()));
                self.uploaded += revealed.len();
            }
            let start = Cpu::now();
            unmasking.accept(party, &revealed).expect("fits");
            revealing += start.seconds();
        }
        self.server.push(("collect shares", revealing));
        let start = Cpu::now();
        let opened = unmasking.open().expect("consistent");
        self.server.push(("open secrets", start.seconds()));
        let start = Cpu::now();
        let sum = opened.unmask();
        self.server.push(("remove masks", start.seconds()));
        drop(black_box(sum.into_sum(self.grid)));
    }
}

/// How fast masks are made and added, one key and many.
fn masks() {
    let len = 1 << 20;
    for (name, generator) in [("AES-256-CTR", PrgId::Aes256Ctr), ("ChaCha20", PrgId::ChaCha20)] {
        let mut best = f64::MAX;
        for _ in 0..15 {
            let mut sums = vec![0_u32; len];
            let start = Cpu::now();
            skep_privacy::secagg::add_mask(&mut sums, &Key::from_seed(1), generator);
            best = best.min(start.seconds());
            black_box(&sums);
        }
        println!("{:<40} {:>8.2} GB/s", format!("mask and add, {name}"), 4.0 * len as f64 / best / 1e9);
    }
    #[cfg(target_arch = "x86_64")]
    limit::report();
}

/// What the AES instructions of this processor do when nothing else happens.
#[cfg(target_arch = "x86_64")]
mod limit {
    #![allow(unsafe_code, reason = "calls functions for instructions that were found to be there")]

    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::Cpu;

    pub(super) fn report() {
        let rate = |name: &str, bytes: usize, run: unsafe fn(usize)| {
            const ROUNDS: usize = 1 << 20;
            let mut best = f64::MAX;
            for _ in 0..15 {
                let start = Cpu::now();
                // SAFETY: the caller looked for the feature.
                unsafe { run(ROUNDS) };
                best = best.min(start.seconds());
            }
            println!("{name:<40} {:>8.2} GB/s", (bytes * ROUNDS) as f64 / best / 1e9);
        };
        if is_x86_feature_detected!("aes") {
            rate("AES-256 limit, 128-bit instructions", 8 * 16, narrow);
        }
        if is_x86_feature_detected!("vaes") && is_x86_feature_detected!("avx512f") {
            rate("AES-256 limit, 512-bit instructions", 8 * 64, wide);
        }
    }

    #[target_feature(enable = "aes")]
    fn narrow(rounds: usize) {
        let key = _mm_set1_epi32(black_box(7));
        let mut lanes: [__m128i; 8] = std::array::from_fn(|i| _mm_set1_epi32(i as i32));
        for _ in 0..rounds {
            for _ in 0..13 {
                lanes = lanes.map(|lane| _mm_aesenc_si128(lane, key));
            }
            lanes = lanes.map(|lane| _mm_aesenclast_si128(lane, key));
        }
        black_box(lanes);
    }

    #[target_feature(enable = "vaes,avx512f")]
    fn wide(rounds: usize) {
        let key = _mm512_set1_epi32(black_box(7));
        let mut lanes: [__m512i; 8] = std::array::from_fn(|i| _mm512_set1_epi32(i as i32));
        for _ in 0..rounds {
            for _ in 0..13 {
                lanes = lanes.map(|lane| _mm512_aesenc_epi128(lane, key));
            }
            lanes = lanes.map(|lane| _mm512_aesenclast_epi128(lane, key));
        }
        black_box(lanes);
    }
}

/// The time that this thread had a core, so that others on the machine do not count; elsewhere than on Linux, all time.
struct Cpu(Duration);

impl Cpu {
    fn now() -> Self {
        Self(spent())
    }

    fn seconds(&self) -> f64 {
        (spent() - self.0).as_secs_f64()
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library does not tell")]
fn spent() -> Duration {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: std::ffi::c_long,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const THREAD_CPU: i32 = 3;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the structure is that of the system's on 64-bit Linux, and lives through the call.
    let failed = unsafe { clock_gettime(THREAD_CPU, &raw mut time) };
    assert_eq!(failed, 0, "Linux has this clock");
    Duration::new(time.seconds as u64, time.nanoseconds as u32)
}

#[cfg(not(target_os = "linux"))]
fn spent() -> Duration {
    thread_local! { static BEGIN: std::time::Instant = std::time::Instant::now(); }
    BEGIN.with(std::time::Instant::elapsed)
}
